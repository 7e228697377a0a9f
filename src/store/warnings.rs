//! The warnings of a command, each once.

use std::cell::RefCell;

/// Conditions that need attention but do not stop the command.
#[derive(Debug, Default)]
pub(in crate::store) struct Warnings {
    list: RefCell<Vec<String>>,
    last: RefCell<Vec<String>>,
}

impl Warnings {
    /// Adds one.
    pub(in crate::store) fn add(&self, warning: String) {
        add_once(&self.list, warning);
    }

    /// Adds one that comes after all others, at the end of the output, where it is seen first.
    pub(in crate::store) fn add_last(&self, warning: String) {
        add_once(&self.last, warning);
    }

    /// Takes all, with these before the last ones.
    pub(in crate::store) fn take_with(
        &self,
        more: impl IntoIterator<Item = String>,
    ) -> Vec<String> {
        let mut warnings = self.list.take();
        warnings.extend(more);
        warnings.append(&mut self.last.borrow_mut());
        warnings
    }
}

fn add_once(list: &RefCell<Vec<String>>, warning: String) {
    let mut list = list.borrow_mut();
    if !list.contains(&warning) {
        list.push(warning);
    }
}
