//! Every RPC of a node, as the descriptors that reflection serves have them, and those of
//! reflection itself: what the tests of rights hold their tables and refusals against.

use std::collections::BTreeSet;

use prost::Message;
use prost_types::FileDescriptorSet;

/// Their paths, such as `/log.v1.Log/Produce`.
pub(crate) fn rpcs() -> BTreeSet<String> {
    let sets = [
        dislog_proto::FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let files = sets.iter().flat_map(|set| FileDescriptorSet::decode(*set).unwrap().file);
    let paths = files.flat_map(|file| {
        let package = file.package().to_owned();
        file.service.into_iter().flat_map(move |service| {
            let prefix = format!("/{package}.{}", service.name());
            service.method.into_iter().map(move |method| format!("{prefix}/{}", method.name()))
        })
    });
    paths.collect()
}
