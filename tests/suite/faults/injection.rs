//! Faults that a disk injects, and the series of them that are tried.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use pipeline_state::fs::Disk;
use rustix::io::Errno;

use crate::effort::is_exhaustive;
use crate::observed::{Call, Fault, Observed};

/// The errors by kind, with their exit codes. Errors of one kind take turns from call to call,
/// unless an exhaustive run tries all at each.
const KINDS: [&[(Errno, u8)]; 4] = [
    &[(Errno::IO, 1)],
    &[(Errno::NOSPC, 7)],
    &[(Errno::DQUOT, 7), (Errno::ROFS, 6), (Errno::ACCESS, 6), (Errno::MFILE, 10)],
    &[(Errno::INTR, 1)],
];

/// The calls that may take effect although they report an error, as on a network file system.
const DOUBTFUL: [&str; 5] = ["rename", "link", "unlink", "create", "make_dir"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasting {
    Once,
    EverAfter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Fails,
    HappensAndFails,
    Shortened,
}

#[derive(Clone, Copy, Debug)]
pub struct InjectedFault {
    pub errno: Errno,
    pub code: u8,
    pub lasting: Lasting,
    pub manner: Manner,
}

/// Errors of one kind in one manner, which take turns from call to call.
#[derive(Clone, Copy, Debug)]
pub struct Series {
    pub errors: &'static [(Errno, u8)],
    pub lasting: Lasting,
    pub manner: Manner,
}

impl Series {
    /// Every error in every manner.
    pub fn all() -> Vec<Self> {
        let kinds: Vec<&'static [(Errno, u8)]> = match is_exhaustive() {
            true => KINDS.iter().flat_map(|errors| errors.chunks(1)).collect(),
            false => KINDS.to_vec(),
        };
        let mut all = Vec::new();
        for lasting in [Lasting::Once, Lasting::EverAfter] {
            for errors in &kinds {
                for manner in [Manner::Fails, Manner::HappensAndFails] {
                    all.push(Self { errors, lasting, manner });
                }
            }
            // no call takes effect and is interrupted ever after: each repetition would make a name
            all.retain(|series| !series.interrupts_for_ever());
            all.push(Self { errors: KINDS[0], lasting, manner: Manner::Shortened });
        }
        all
    }

    pub fn interrupts_for_ever(&self) -> bool {
        self.errors[0].0 == Errno::INTR
            && (self.lasting, self.manner) == (Lasting::EverAfter, Manner::HappensAndFails)
    }

    /// The fault of the `nth` call.
    pub fn at(self, nth: usize) -> InjectedFault {
        let (errno, code) = self.errors[nth % self.errors.len()];
        InjectedFault { errno, code, lasting: self.lasting, manner: self.manner }
    }
}

impl InjectedFault {
    /// A disk that fails its `nth` call of those that can fail this way; the second value is that
    /// call.
    pub fn disk(self, nth: usize) -> (Disk, Rc<RefCell<Option<Call>>>) {
        let (count, hit) = (Cell::new(0), Rc::new(RefCell::new(None)));
        let seen = Rc::clone(&hit);
        let observed = Observed::new(move |call| {
            let doubtful = DOUBTFUL.contains(&call.name);
            let counts = match self.manner {
                Manner::Fails => true,
                Manner::HappensAndFails => doubtful,
                Manner::Shortened => call.name == "write",
            };
            let broken = seen.borrow().is_some() && self.lasting == Lasting::EverAfter;
            count.set(count.get() + usize::from(counts));
            if !broken {
                if !counts || count.get() != nth {
                    return Fault::None;
                }
                *seen.borrow_mut() = Some(call.clone());
            }
            match self.manner {
                Manner::Shortened => Fault::ShortWrite,
                Manner::HappensAndFails if doubtful => Fault::FailsAfter(self.errno),
                _ => Fault::Fails(self.errno),
            }
        });
        (Disk::new(Rc::new(observed)), hit)
    }
}
