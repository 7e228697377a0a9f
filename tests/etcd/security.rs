//! Users, roles and certificates.

use std::time::Duration;

use pipeline_state::error::{Error, Kind};
use pipeline_state::etcd::client::{Client, Patience};
use pipeline_state::etcd::credentials::{Credentials, User, Verification};
use pipeline_state::etcd::failure::Failure;
use pipeline_state::etcd::messages::TxnRequest;
use pipeline_state::etcd::txn::{Keys, put};

use crate::authority::Authority;
use crate::server::{PATIENT, Server, client, etcdctl};

fn write(store: &Client, key: &str) -> Result<(), Failure> {
    let request = TxnRequest { success: vec![put(key.to_owned(), "")], ..Default::default() };
    store.commit(&request).map(drop)
}

fn refused_with(failure: Failure) -> (u8, Kind) {
    let error = Error::from(failure);
    (error.code() as u8, error.kind)
}

#[test]
fn a_login_opens_what_its_role_allows() {
    let server = Server::start("http", &["--auth-token-ttl", "1"]);
    server.client().status().unwrap();
    for words in [
        "role add pipeline",
        "role grant-permission pipeline --prefix=true readwrite /mine/",
        "user add me:secret",
        "user grant-role me pipeline",
        "user add root:root",
        "user grant-role root root",
    ] {
        server.etcdctl(&words.split(' ').collect::<Vec<_>>());
    }
    let me = User { name: "me".into(), password: "secret".into() };
    let log_in = |user: Option<&User>| {
        client(&server.url(), Credentials { user: user.cloned(), ..Default::default() }, PATIENT)
    };
    // A cluster without logins serves one that would log in.
    write(&log_in(Some(&me)), "/mine/a").unwrap();
    server.etcdctl(&["auth", "enable"]);

    let store = log_in(Some(&me));
    write(&store, "/mine/a").unwrap();
    assert_eq!(store.range(&Keys::below("/mine/").read()).unwrap().kvs.len(), 1);
    let denied = (6, Kind::PermissionDenied);
    assert_eq!(refused_with(write(&store, "/yours/a").unwrap_err()), denied);
    let unwatchable = store.watch(&Keys::below("/yours/")).unwrap_err();
    assert_eq!(refused_with(unwatchable), denied);
    store.watch(&Keys::below("/mine/")).unwrap();

    let wrong = User { password: "wrong".into(), ..me.clone() };
    assert_eq!(refused_with(write(&log_in(Some(&wrong)), "/mine/a").unwrap_err()), denied);
    assert_eq!(refused_with(write(&log_in(None), "/mine/a").unwrap_err()), denied);

    // A token that is no longer known: the next request logs in again.
    server.etcdctl(&["--user", "root:root", "auth", "disable"]);
    server.etcdctl(&["auth", "enable"]);
    write(&store, "/mine/b").unwrap();
}

#[test]
fn certificates_are_checked_on_both_sides() {
    let ca = Authority::new();
    ca.sign("server", "IP:127.0.0.1");
    ca.sign("elsewhere", "DNS:elsewhere.example");
    ca.sign("me", "DNS:me");
    let path = |name: &str| ca.path(name).display().to_string();
    let server_with = |name: &str| {
        let (certificate, key) = (path(&format!("{name}.pem")), path(&format!("{name}.key")));
        let trusted = path("ca.pem");
        Server::start(
            "https",
            &[
                "--cert-file",
                &certificate,
                "--key-file",
                &key,
                "--trusted-ca-file",
                &trusted,
                "--client-cert-auth",
            ],
        )
    };
    let of = |ca: &Authority, name: &str| Credentials {
        ca: Some(ca.path("ca.pem")),
        identity: Some((ca.path(&format!("{name}.pem")), ca.path(&format!("{name}.key")))),
        ..Default::default()
    };
    let open = |server: &Server, credentials: &Credentials, patience: Patience| {
        let url = format!("etcds://127.0.0.1:{}/p", server.port);
        client(&url, credentials.clone(), patience)
    };
    let server = server_with("server");
    let me = of(&ca, "me");
    let store = open(&server, &me, PATIENT);
    write(&store, "/mine/a").unwrap();

    let soon = Patience { reach: Duration::from_secs(20), settle: Duration::from_secs(20) };
    let refused = |credentials: &Credentials| {
        refused_with(write(&open(&server, credentials, soon), "/mine/a").unwrap_err())
    };
    let no_trust = (8, Kind::Tls);
    let stranger = Authority::new();
    stranger.sign("me", "DNS:me");
    assert_eq!(refused(&Credentials { ca: Some(stranger.path("ca.pem")), ..me.clone() }), no_trust);
    assert_eq!(
        refused(&Credentials { identity: of(&stranger, "me").identity, ..me.clone() }),
        no_trust
    );
    assert_eq!(refused(&Credentials { identity: None, ..me.clone() }), no_trust);

    // A certificate that names another host.
    let elsewhere = server_with("elsewhere");
    let unverified = Credentials { ca: None, verification: Verification::Skipped, ..me.clone() };
    write(&open(&elsewhere, &unverified, PATIENT), "/mine/a").unwrap();
    let failure = write(&open(&elsewhere, &me, soon), "/mine/a").unwrap_err();
    assert_eq!(refused_with(failure), no_trust);

    // In the clear to a port that speaks TLS, and the other way round.
    let soon = Patience { reach: Duration::from_millis(300), settle: Duration::from_secs(20) };
    let plain = client(&format!("etcd://127.0.0.1:{}/p", server.port), me.clone(), soon);
    let hint = |failure: Failure| Error::from(failure).to_text("", &"p".into());
    let failure = write(&plain, "/a").unwrap_err();
    assert!(hint(failure.clone()).contains("etcds://"), "{failure:?}");
    assert_eq!(refused_with(failure), (8, Kind::Unreachable));
    let url = format!("etcds://127.0.0.1:{}/p", crate::server::shared().port);
    let tls = client(&url, me.clone(), soon);
    let failure = tls.status().map(drop).unwrap_err();
    assert!(hint(failure.clone()).contains("etcd://"), "{failure:?}");
    assert_eq!(refused_with(failure).0, 8);

    // The key of another certificate.
    let key = of(&ca, "server").identity.unwrap().1;
    let mixed = Credentials { identity: Some((ca.path("me.pem"), key)), ..me.clone() };
    let error = mixed.tls().unwrap_err();
    assert_eq!(error.kind, Kind::Usage);
    assert!(error.message.contains("is not the key of the certificate"), "{error}");

    // The certificate's name is the user, where the cluster has users.
    let (cacert, cert, key) = (path("ca.pem"), path("me.pem"), path("me.key"));
    let endpoint = format!("https://127.0.0.1:{}", server.port);
    let by_tls = ["--endpoints", &endpoint, "--cacert", &cacert, "--cert", &cert, "--key", &key];
    for words in [
        "role add pipeline",
        "role grant-permission pipeline --prefix=true readwrite /mine/",
        "user add me:unused",
        "user grant-role me pipeline",
        "user add root:root",
        "user grant-role root root",
        "auth enable",
    ] {
        etcdctl(&[&by_tls[..], &words.split(' ').collect::<Vec<_>>()].concat());
    }
    write(&store, "/mine/b").unwrap();
    assert_eq!(refused_with(write(&store, "/yours/b").unwrap_err()), (6, Kind::PermissionDenied));
}
