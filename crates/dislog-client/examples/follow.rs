//! Follows the end of a topic until Ctrl-C: `cargo run --example follow -- 127.0.0.1:8400 demo`.
//!
//! It survives restarts of the server, and goes on behind records that were trimmed before it could
//! read them.
#![allow(clippy::print_stdout)]

use dislog_client::{Client, ClientOptions, ConsumerOptions, End, Error, Start};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let server = arguments.next().unwrap_or_else(|| "127.0.0.1:8400".to_owned());
    let topic = arguments.next().unwrap_or_else(|| "demo".to_owned());

    let client = Client::connect([server], ClientOptions::default())?;
    let options =
        ConsumerOptions { start: Start::Last(10), end: End::Never, ..ConsumerOptions::default() };
    let mut consumer = client.consumer(&topic, 0, options)?;
    loop {
        match consumer.next().await {
            Ok(Some(record)) => {
                println!("{} {}", record.offset, String::from_utf8_lossy(&record.value));
            }
            Ok(None) => return Ok(()),
            Err(Error::Trimmed { offset, earliest, .. }) => {
                println!("offsets {offset} to {earliest} are gone");
                consumer.seek(earliest);
            }
            Err(error) => return Err(error),
        }
    }
}
