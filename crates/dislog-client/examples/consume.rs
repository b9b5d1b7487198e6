//! Prints what a topic has at the moment: `cargo run --example consume -- 127.0.0.1:8400 demo`.
#![allow(clippy::print_stdout)]

use std::error::Error;

use dislog_client::{Client, ClientOptions, ConsumerOptions, End, Start};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let server = arguments.next().unwrap_or_else(|| "127.0.0.1:8400".to_owned());
    let topic = arguments.next().unwrap_or_else(|| "demo".to_owned());

    let client = Client::connect([server], ClientOptions::default())?;
    for partition in client.describe_topic(&topic).await?.partitions {
        let options = ConsumerOptions {
            start: Start::Earliest,
            end: End::Committed,
            ..ConsumerOptions::default()
        };
        let mut consumer = client.consumer(&topic, partition.partition, options)?;
        while let Some(batch) = consumer.next_batch().await? {
            for record in batch.records {
                let value = String::from_utf8_lossy(&record.value);
                println!("{}:{} {value}", partition.partition, record.offset);
            }
        }
    }
    Ok(())
}
