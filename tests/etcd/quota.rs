//! A database that is full.

use pipeline_state::error::{Error, Kind};
use pipeline_state::etcd::messages::{Alarm, TxnRequest};
use pipeline_state::etcd::txn::{Keys, put};

use crate::server::Server;

#[test]
fn a_full_database_is_7_and_heals_when_its_alarm_is_off() {
    let server = Server::start("http", &["--quota-backend-bytes", "2000000"]);
    let store = server.client();
    let write = |value: Vec<u8>| {
        store.commit(&TxnRequest { success: vec![put("/fill", value)], ..Default::default() })
    };
    // The size is that of the last batch, which is written ten times a second.
    let failure = (0..500).find_map(|_| write(vec![b'x'; 500_000]).err()).unwrap();
    let error = Error::from(failure);
    assert_eq!((error.code() as u8, error.kind), (7, Kind::DiskFull), "{error}");
    assert_eq!(store.alarms().unwrap()[0].alarm, Alarm::NoSpace as i32);
    // Reads go on.
    let read = store.range(&Keys::one("/fill").read()).unwrap();
    let revision = read.header.unwrap().revision.to_string();
    server.etcdctl(&["compact", &revision]);
    server.etcdctl(&["defrag"]);
    server.etcdctl(&["alarm", "disarm"]);
    write(b"y".to_vec()).unwrap();
}
