//! Adds the lines of standard input to a topic: `cargo run --example produce -- 127.0.0.1:8400 demo
//! < file`.

use std::error::Error;
use std::io::BufRead;

use dislog_client::{Client, ClientOptions, Compression, ProducerOptions, Record};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let server = arguments.next().unwrap_or_else(|| "127.0.0.1:8400".to_owned());
    let topic = arguments.next().unwrap_or_else(|| "demo".to_owned());

    let client = Client::connect([server], ClientOptions::default())?;
    let options = ProducerOptions { compression: Compression::Lz4, ..ProducerOptions::default() };
    let producer = client.producer(&topic, options)?;
    for line in std::io::stdin().lock().lines() {
        // Waits while the buffer is full. The delivery is not awaited here: `close` reports any
        // failure.
        drop(producer.send(Record::new(line?)).await?);
    }
    // Everything is on stable storage once this returns.
    producer.close().await?;
    Ok(())
}
