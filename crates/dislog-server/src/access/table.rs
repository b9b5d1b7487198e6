//! What every RPC and every HTTP route needs, health aside: one table, so that none is forgotten.
//!
//! The HTTP half is where the routes are ([`http`](crate::http)): none can be added without saying
//! what it needs. For RPCs, a test holds this table and the descriptors together.

use dislog_proto::CLUSTER_OBJECT;

use super::Action;

/// What it takes to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing: probes have no identity.
    Nothing,
    /// To have proved who one is. What the answer shows depends on what one may see.
    Identity,
    /// A right about the cluster as a whole.
    Cluster(Action),
    /// A right about the topic of the request.
    Topic(Action),
    /// Any right about the topic of the request.
    Seeing,
}

impl Need {
    /// What it is about, if that is known before the request is read.
    pub(super) fn of_head(self) -> Option<(Action, &'static str)> {
        match self {
            Need::Cluster(action) => Some((action, CLUSTER_OBJECT)),
            Need::Nothing | Need::Identity | Need::Topic(_) | Need::Seeing => None,
        }
    }
}

use Action::{Admin, Consume, Produce};
use Need::{Cluster, Identity, Nothing, Seeing, Topic};

/// Every RPC by its path.
pub(crate) const RPCS: &[(&str, Need)] = &[
    ("/log.v1.Log/Produce", Topic(Produce)),
    ("/log.v1.Log/ProduceStream", Topic(Produce)),
    ("/log.v1.Log/Consume", Topic(Consume)),
    ("/log.v1.Log/ConsumeStream", Topic(Consume)),
    ("/log.v1.Log/GetServers", Identity),
    ("/log.v1.Admin/CreateTopic", Topic(Admin)),
    ("/log.v1.Admin/AlterTopic", Topic(Admin)),
    ("/log.v1.Admin/TrimTopic", Topic(Admin)),
    ("/log.v1.Admin/DeleteTopic", Topic(Admin)),
    ("/log.v1.Admin/ListTopics", Identity),
    ("/log.v1.Admin/DescribeTopic", Seeing),
    ("/log.v1.Admin/DescribeCluster", Identity),
    ("/log.v1.Admin/DescribeReplicas", Identity),
    ("/log.v1.Admin/DrainNode", Cluster(Admin)),
    ("/log.v1.Admin/RemoveNode", Cluster(Admin)),
    ("/log.v1.Admin/TransferLeader", Cluster(Admin)),
    ("/log.v1.Admin/CreateToken", Cluster(Admin)),
    ("/log.v1.Admin/ListTokens", Cluster(Admin)),
    ("/log.v1.Admin/RevokeToken", Cluster(Admin)),
    ("/log.v1.Admin/CheckAccess", Identity),
    ("/grpc.health.v1.Health/Check", Nothing),
    ("/grpc.health.v1.Health/Watch", Nothing),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Identity),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Identity),
];

/// The path of an RPC, as it is recorded, and what it needs. One that is not in the table is not
/// there either: the most is asked for.
pub(super) fn rpc(path: &str) -> (&'static str, Need) {
    let known = RPCS.iter().find(|(known, _)| *known == path);
    known.copied().unwrap_or(("unknown RPC", Cluster(Admin)))
}

#[cfg(test)]
#[path = "../../tests/registered/mod.rs"]
mod registered;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_rpc_is_in_the_table_and_nothing_else() {
        let table: BTreeSet<String> = RPCS.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(table, registered::rpcs());
        assert_eq!(table.len(), RPCS.len(), "none twice");
    }

    #[test]
    fn only_health_needs_nothing() {
        let free = RPCS.iter().filter(|(_, need)| *need == Nothing);
        assert!(free.clone().all(|(path, _)| path.starts_with("/grpc.health.v1.Health/")));
        assert_eq!(rpc("/log.v1.Admin/Tomorrow").1, Cluster(Admin));
    }
}
