//! Models of what changes when a token is lost and comes back.

use loom::thread;

use crate::sync::Arc;
use crate::token::current::Current;
use crate::token::epoch::{CurrentEpoch, Epoch, Loss};

#[test]
fn loom_a_handle_is_never_read_with_the_epoch_of_another() {
    loom::model(|| {
        let current = Arc::new(Current::new(1, 10));
        let service = Arc::clone(&current);
        let service = thread::spawn(move || {
            service.set(2, 20);
            service.set(3, 30);
        });
        if let Some((epoch, object)) = current.get() {
            assert_eq!(object, 10 * epoch);
        }
        service.join().expect("service");
        assert_eq!(current.get(), Some((3, 30)), "nobody writes any more");
    });
}

#[test]
fn loom_a_loss_that_is_seen_late_ends_its_own_epoch_and_no_other() {
    loom::model(|| {
        let old = Arc::new(Epoch::new(1));
        let current = CurrentEpoch::new(&old);
        // Two sessions see that the token is gone, one of them late.
        let sessions = [Loss::Token, Loss::Login].map(|loss| {
            let (current, of) = (current.clone(), Arc::clone(&old));
            thread::spawn(move || current.lose(loss, Some(&of)))
        });
        // Its service thread logs in again meanwhile, if it knows of the loss.
        let next = old.is_over().then(|| Arc::new(Epoch::new(2)));
        next.iter().for_each(|next| current.begin(next));
        let noticed = sessions.map(|session| session.join().expect("session"));
        assert!(old.is_gone(), "whatever the order: there is nothing to close");
        match next {
            Some(next) => assert!(!next.is_over() && !current.is_over()),
            None => assert!(current.is_over() && noticed == [true; 2]),
        }
    });
}
