//! LeaveGroup: members go, by themselves or because an administrator wants it.

use super::ask::Leaver;
use super::state::Group;
use super::{Cx, Error, Reply, State, Waiter};

impl Group {
    /// Members leave. The answer waits for the record that the group has become empty, where it has: after it, a
    /// restart of the broker brings nobody back.
    pub(super) fn leave(&mut self, cx: &mut Cx<'_>, waiter: Waiter, leavers: &[Leaver]) {
        if self.consumer.is_some() {
            return self.classic_leaves(cx, waiter, leavers);
        }
        let results: Vec<Result<(), Error>> = leavers.iter().map(|leaver| self.let_go(cx, leaver)).collect();
        if results.iter().any(Result::is_ok) && self.state != State::Empty {
            self.rebalance_or_complete(cx);
        }
        cx.answer_durable(waiter, Ok(Reply::Left(results)));
    }

    fn let_go(&mut self, cx: &mut Cx<'_>, leaver: &Leaver) -> Result<(), Error> {
        if leaver.member_id.is_empty() {
            let instance = leaver.instance.as_ref().ok_or(Error::UnknownMember)?;
            let id = self.statics.get(instance).cloned().ok_or(Error::UnknownMember)?;
            self.dismiss(cx, &id);
            return Ok(());
        }
        if self.pending.remove(&leaver.member_id).is_some() {
            return Ok(());
        }
        self.check_member(&leaver.member_id, leaver.instance.as_deref())?;
        self.dismiss(cx, &leaver.member_id);
        Ok(())
    }
}
