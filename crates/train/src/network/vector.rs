//! Norms' weights.

use super::compute::{Compute, Slot};
use crate::parameters::{ParameterId, Sums};

/// A norm's weight.
#[derive(Debug)]
pub(super) enum Vector<C: Compute> {
    Frozen(C::Array),
    Trained(ParameterId),
}

impl<C: Compute> Vector<C> {
    /// Where its gradient goes, if it has one.
    pub(super) fn slot<'a>(&self, sums: &'a mut Sums<C::Array>) -> Option<&'a mut Slot<C::Array>> {
        match self {
            Self::Frozen(_) => None,
            Self::Trained(id) => Some(sums.slot(*id)),
        }
    }
}
