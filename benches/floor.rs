//! The smallest program that does what a command does on a cluster: the requests, and nothing else.
//!
//!     floor get URL
//!     floor set URL VALUE

use std::error::Error;
use std::time::Duration;

use pipeline_state::etcd::address::Address;
use pipeline_state::etcd::client::{Client, Patience};
use pipeline_state::etcd::credentials::Credentials;
use pipeline_state::etcd::endpoints::Endpoints;
use pipeline_state::etcd::messages::TxnRequest;
use pipeline_state::etcd::txn::{Keys, put};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (url, value) = match words.as_slice() {
        ["get", url] => (url, None),
        ["set", url, value] => (url, Some(value)),
        _ => return Err("usage: floor get URL | floor set URL VALUE".into()),
    };
    let address = Address::parse(url)?;
    let wire = Endpoints::new(&address, Credentials::default())?;
    let time = Duration::from_secs(60);
    let client = Client::new(Box::new(wire), None, Patience { reach: time, settle: time });
    let state = format!("{}/state", address.prefix);
    let found = client.range(&Keys::one(state.clone()).read())?;
    let Some(value) = value else {
        println!("{}", found.kvs.first().map_or(0, |kv| kv.value.len()));
        return Ok(());
    };
    // As much as a commit puts: the document, a backup of the last one, and a line for the log.
    let document = format!("{value}{}", "x".repeat(1_000));
    let success = vec![
        put(state, document.clone()),
        put(format!("{}/backup/{}", address.prefix, value.len() % 5), document),
        put(format!("{}/log/{value}", address.prefix), "x".repeat(300)),
    ];
    let request = TxnRequest { success, ..TxnRequest::default() };
    if client.commit(&request)?.succeeded { Ok(()) } else { Err("nothing was put".into()) }
}
