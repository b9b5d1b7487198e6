//! A node that can be stopped and started again on its data and port.

use std::net::SocketAddr;

use dislog_client::{Client, ClientOptions, ConsumedRecord, ConsumerOptions};
use dislog_server::{Config, Insecure, Server};
use tempfile::TempDir;

use crate::ports::free_addresses;

pub(crate) struct Node {
    data: TempDir,
    addr: SocketAddr,
    server: Option<Server>,
}

impl Node {
    pub(crate) async fn start() -> Node {
        let data = tempfile::tempdir().unwrap();
        let [address] = free_addresses(1).try_into().unwrap();
        let server = Server::start(config(&data, address)).await.unwrap();
        Node { data, addr: server.addr(), server: Some(server) }
    }

    pub(crate) async fn stop(&mut self) {
        self.server.take().expect("it runs").shutdown().await;
    }

    pub(crate) async fn start_again(&mut self) {
        let config = config(&self.data, self.addr.to_string());
        self.server = Some(Server::start(config).await.unwrap());
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn client(&self) -> Client {
        client(self.addr)
    }
}

fn config(data: &TempDir, listen: String) -> Config {
    let (data_dir, insecure) = (data.path().to_owned(), Insecure::Loopback);
    Config { data_dir, listen, insecure, ..Config::default() }
}

pub(crate) fn client(addr: SocketAddr) -> Client {
    Client::connect([addr.to_string()], ClientOptions::default()).unwrap()
}

/// Everything committed in a partition.
pub(crate) async fn read_all(client: &Client, topic: &str, partition: u32) -> Vec<ConsumedRecord> {
    let mut consumer = client.consumer(topic, partition, ConsumerOptions::default()).unwrap();
    let mut records = Vec::new();
    while let Some(batch) = consumer.next_batch().await.unwrap() {
        records.extend(batch.records);
    }
    records
}

/// Checks that `records` are exactly the values 0 to `count` at offsets 0 to `count`.
pub(crate) fn assert_numbered(records: &[ConsumedRecord], count: usize) {
    assert_eq!(records.len(), count, "records are missing or doubled");
    for (number, record) in records.iter().enumerate() {
        assert_eq!(record.offset, number as u64);
        assert_eq!(record.value, number.to_string(), "at offset {number}");
    }
}
