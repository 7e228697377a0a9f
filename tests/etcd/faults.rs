//! A wire on which the k-th call fails.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use pipeline_state::etcd::address::Address;
use pipeline_state::etcd::client::{Client, Patience};
use pipeline_state::etcd::credentials::Credentials;
use pipeline_state::etcd::endpoints::Endpoints;
use pipeline_state::etcd::failure::{Cause, Failure};
use pipeline_state::etcd::fate::Fate;
use pipeline_state::etcd::messages::{Operation, RequestOp, TxnRequest};
use pipeline_state::etcd::txn::{Keys, absent, put};
use pipeline_state::etcd::wire::{Call, Method, Stream, Wire};
use prost::Message as _;

use crate::server::{Server, shared};

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not sent.
    NotSent,
    /// It is lost on its way.
    Lost,
    /// It is carried out, and its answer is lost.
    AnswerLost,
    /// The cluster refuses it.
    Refused,
    /// It is carried out twice, and the second answer is given.
    Twice,
}

pub const FAULTS: [Fault; 5] =
    [Fault::NotSent, Fault::Lost, Fault::AnswerLost, Fault::Refused, Fault::Twice];

/// Which calls fail.
#[derive(Clone, Copy, Debug)]
pub enum Span {
    /// One, and its repetition does not.
    Once,
    /// One, as often as it is sent.
    EachTime,
    /// All from that one on.
    FromThenOn,
}

/// What happens just before a call.
type Happening = (usize, Box<dyn FnOnce()>);

/// The calls that were made, and what happens to them.
#[derive(Clone)]
pub struct Plan {
    pub calls: Rc<Cell<usize>>,
    /// The transactions among them that would change something.
    pub commits: Rc<Cell<usize>>,
    /// What happens just before a call.
    before: Rc<RefCell<Option<Happening>>>,
    /// The first call that fails.
    failed: Rc<RefCell<Option<(Method, Bytes)>>>,
    /// Counted from 0; `None` for no fault.
    pub fails: Option<(usize, Fault, Span)>,
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan").field("fails", &self.fails).finish_non_exhaustive()
    }
}

impl Plan {
    pub fn new(fails: Option<(usize, Fault, Span)>) -> Self {
        Self {
            calls: Rc::default(),
            commits: Rc::default(),
            before: Rc::default(),
            failed: Rc::default(),
            fails,
        }
    }

    /// Lets something happen just before a call.
    pub fn before(&self, call: usize, happens: impl FnOnce() + 'static) {
        self.before.replace(Some((call, Box::new(happens))));
    }

    /// Sends the transaction that failed first, if it was one, after its command has ended.
    pub fn send_late(&self) {
        let failed = self.failed.borrow().clone();
        let request = failed.and_then(|(method, message)| match method {
            Method::Txn => TxnRequest::decode(message).ok(),
            _ => None,
        });
        request.iter().for_each(|request| drop(shared().client().commit(request)));
    }

    fn count(&self, call: &Call) {
        let changes =
            |operation: &RequestOp| !matches!(operation.request, None | Some(Operation::Range(_)));
        if call.method == Method::Txn
            && TxnRequest::decode(&*call.message).unwrap().success.iter().any(changes)
        {
            self.commits.set(self.commits.get() + 1);
        }
    }

    fn fault(&self, call: &Call) -> Option<Fault> {
        let number = self.calls.replace(self.calls.get() + 1);
        if let Some((_, happens)) = self.before.borrow_mut().take_if(|(call, _)| *call == number) {
            happens();
        }
        let (first, fault, span) = self.fails?;
        if number == first {
            self.failed.replace(Some((call.method, call.message.clone())));
        }
        let hits = match span {
            Span::Once => number == first,
            Span::EachTime => {
                let is_it = |(_, message): &(Method, Bytes)| *message == call.message;
                self.failed.borrow().as_ref().is_some_and(is_it)
            }
            Span::FromThenOn => number >= first,
        };
        hits.then_some(fault)
    }
}

#[derive(Debug)]
pub struct FaultyWire {
    pub network: Endpoints,
    pub plan: Plan,
}

impl FaultyWire {
    pub fn to(server: &Server, plan: &Plan) -> Self {
        let address = Address::parse(&server.url()).unwrap();
        let network = Endpoints::new(&address, Credentials::default()).unwrap();
        Self { network, plan: plan.clone() }
    }
}

impl Wire for FaultyWire {
    fn unary(&self, call: &Call) -> Result<Bytes, Failure> {
        self.plan.count(call);
        match self.plan.fault(call) {
            None => self.network.unary(call),
            Some(Fault::NotSent) => Err(Failure::not_sent(Cause::Lost("a test".to_owned()))),
            Some(Fault::Lost) => Err(Failure::unknown(Cause::Lost("a test".to_owned()))),
            Some(Fault::AnswerLost) => {
                self.network.unary(call)?;
                Err(Failure::unknown(Cause::Lost("a test".to_owned())))
            }
            Some(Fault::Refused) => Err(Failure::of_status(14, "etcdserver: no leader")),
            Some(Fault::Twice) => {
                self.network.unary(call)?;
                self.network.unary(call)
            }
        }
    }

    fn stream(&self, call: &Call) -> Result<Box<dyn Stream>, Failure> {
        match self.plan.fault(call) {
            None | Some(Fault::Twice) => self.network.stream(call),
            Some(Fault::NotSent) => Err(Failure::not_sent(Cause::Lost("a test".to_owned()))),
            Some(Fault::Lost | Fault::AnswerLost) => {
                Err(Failure::unknown(Cause::Lost("a test".to_owned())))
            }
            Some(Fault::Refused) => Err(Failure::of_status(14, "etcdserver: no leader")),
        }
    }
}

/// Soon enough for a test in which nothing answers.
pub const IMPATIENT: Patience =
    Patience { reach: Duration::from_millis(100), settle: Duration::from_millis(100) };

#[test]
fn a_fault_on_the_way_costs_another_attempt_and_nothing_else() {
    for fault in FAULTS {
        let plan = Plan::new(Some((0, fault, Span::Once)));
        let patience = Patience { reach: Duration::from_secs(60), settle: Duration::from_secs(60) };
        let store = Client::new(Box::new(FaultyWire::to(shared(), &plan)), None, patience);
        let key = format!("/once/{fault:?}");
        let request = TxnRequest {
            compare: vec![absent(key.clone())],
            success: vec![put(key.clone(), "")],
            failure: Vec::new(),
        };
        let succeeded = store.commit(&request).unwrap().succeeded;
        // Where it was carried out before, its guards fail now.
        assert_eq!(succeeded, !matches!(fault, Fault::AnswerLost | Fault::Twice), "{fault:?}");
        assert_eq!(store.range(&Keys::one(key).read()).unwrap().kvs[0].version, 1, "{fault:?}");
        store.grant(0x61, Duration::from_secs(60)).unwrap();
    }
}

#[test]
fn a_fault_that_stays_has_the_fate_of_all_attempts() {
    for (fault, fate, code) in [
        (Fault::NotSent, Fate::NotSent, 8),
        (Fault::Refused, Fate::Refused, 8),
        (Fault::Lost, Fate::Unknown, 1),
        (Fault::AnswerLost, Fate::Unknown, 1),
    ] {
        let plan = Plan::new(Some((0, fault, Span::FromThenOn)));
        let store = Client::new(Box::new(FaultyWire::to(shared(), &plan)), None, IMPATIENT);
        let write = TxnRequest { success: vec![put("/stays", "")], ..Default::default() };
        let failure = store.commit(&write).unwrap_err();
        assert_eq!((failure.fate, failure.kind().code() as u8), (fate, code), "{fault:?}");
        assert!(plan.calls.get() > 1);
        // A read changes nothing, whatever becomes of it. The cluster is known not to answer.
        let asked = plan.calls.get();
        let failure = store.range(&Keys::one("/stays").read()).unwrap_err();
        assert_eq!(failure.kind().code() as u8, 8, "{fault:?}");
        assert_eq!(plan.calls.get(), asked + 1, "{fault:?}");
        let failure = store.watch(&Keys::one("/stays")).unwrap_err();
        assert_eq!(failure.kind().code() as u8, 8, "{fault:?}");
    }
}

#[test]
fn a_request_that_waits_to_learn_its_fate_says_so_once_and_names_its_operation() {
    let place = crate::stores::Place::initialized();
    let plan = Plan::new(Some((1, Fault::AnswerLost, Span::FromThenOn)));
    let store = place.faulty(&plan, IMPATIENT);
    let said: Rc<RefCell<Vec<String>>> = Rc::default();
    let listener = said.clone();
    store.on_wait(Box::new(move |what| listener.borrow_mut().push(what.to_owned())));
    let error = crate::stores::set(&store, "n", 1).unwrap_err();
    assert_eq!(said.borrow().len(), 1);
    let operation = error.details["operation"].as_str().unwrap().to_owned();
    let shown = error.to_text("", &"p".into());
    assert!(shown.contains(&format!("state history --operation {operation}")), "{shown}");
    let history = place.store().report().history(Some(1), None).unwrap();
    assert_eq!(history[0].operation.as_deref(), Some(&operation[..]));
}
