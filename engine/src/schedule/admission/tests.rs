use super::*;

fn kind(result: Result<Permit, NoRoom>) -> ErrorKind {
    Error::from(result.map(|_| ()).unwrap_err()).kind()
}

#[test]
fn room_is_bounded_in_requests_and_in_bytes() {
    let admission = Arc::new(Admission::new(2, 100));
    let first = admission.admit(60, 0).unwrap();
    assert_eq!(kind(admission.admit(41, 0)), ErrorKind::Overloaded);
    let _second = admission.admit(40, 0).unwrap();
    assert_eq!(kind(admission.admit(0, 0)), ErrorKind::Overloaded);
    drop(first);
    assert_eq!((admission.requests(), admission.bytes()), (1, 40));
}

#[test]
fn a_request_above_the_cap_is_too_large_and_not_overloaded() {
    let admission = Arc::new(Admission::new(2, 100));
    assert_eq!(kind(admission.admit(101, 0)), ErrorKind::TooLarge);
    assert_eq!((admission.requests(), admission.bytes()), (0, 0));
}

#[test]
fn place_and_bytes_are_given_back_apart_and_once() {
    let admission = Arc::new(Admission::new(2, 100));
    let mut permit = admission.admit(60, 0).unwrap();
    permit.release_bytes();
    assert_eq!((admission.requests(), admission.bytes()), (1, 0));
    admission.places().add(permit.take_place());
    drop(permit);
    assert_eq!((admission.requests(), admission.bytes()), (0, 0));
}

#[test]
fn an_answer_is_uncollected_from_when_its_place_is_free_until_its_bytes_are() {
    let admission = Arc::new(Admission::new(2, 100));
    let mut permit = admission.admit(60, 0).unwrap();
    assert_eq!(admission.uncollected(), 0);
    admission.places().add(permit.take_place());
    assert_eq!(admission.uncollected(), 1);
    permit.release_bytes();
    assert_eq!((admission.uncollected(), admission.bytes()), (0, 0));
}

#[test]
fn who_waits_for_room_hears_of_it() {
    let admission = Arc::new(Admission::new(1, 100));
    let permit = admission.admit(1, 0).unwrap();
    let mut listener = admission.listen(Wants::Room(1), 0);
    assert!(!listener.wait_timeout(Duration::ZERO));
    drop(permit);
    assert!(listener.wait_timeout(Duration::from_secs(60)));
    assert!(admission.admit(1, 0).is_ok());
}

#[test]
fn a_request_that_fits_hears_of_room_that_is_too_little_for_those_before_it() {
    let admission = Arc::new(Admission::new(1, 100));
    let mut answered = admission.admit(50, 0).unwrap();
    admission.places().add(answered.take_place());
    let running = admission.admit(1, 0).unwrap();
    let mut large = [(); 3].map(|()| admission.listen(Wants::Room(60), 0));
    let mut small = admission.listen(Wants::Room(10), 0);
    drop(running);
    assert!(small.wait_timeout(Duration::from_secs(60)));
    let permit = admission.admit(10, 0).unwrap();
    drop((small, permit));
    assert!(!large.iter_mut().any(|large| large.wait_timeout(Duration::ZERO)));
    drop(answered);
    assert!(large[0].wait_timeout(Duration::from_secs(60)), "the first of them that came");
    assert!(!large[1].wait_timeout(Duration::ZERO));
}

#[test]
fn who_was_told_of_room_and_does_not_take_it_has_another_told() {
    let admission = Arc::new(Admission::new(1, 100));
    let mut waiting = [60, 10, 10].map(|bytes| admission.listen(Wants::Room(bytes), 0));
    let [large, small, last] = &mut waiting;
    drop(admission.admit(1, 0).unwrap());
    // Before it looks, another has taken the bytes and given back the place.
    let mut barging = admission.admit(50, 0).unwrap();
    admission.places().add(barging.take_place());
    assert!(large.wait_timeout(Duration::from_secs(60)));
    assert_eq!(kind(admission.admit(60, 0)), ErrorKind::Overloaded);
    assert!(!small.wait_timeout(Duration::ZERO), "the place was for who was told");
    assert!(!large.wait_timeout(Duration::ZERO));
    assert!(small.wait_timeout(Duration::from_secs(60)));
    // It looks no more, as a future that is dropped.
    drop(admission.admit(10, 0).unwrap());
    assert!(!last.wait_timeout(Duration::ZERO));
    let [large, small, mut last] = waiting;
    drop((large, small));
    assert!(last.wait_timeout(Duration::from_secs(60)));
}

#[test]
fn a_tenant_leaves_as_much_as_it_has_and_is_told_why_it_gets_no_more() {
    let admission = Arc::new(Admission::new(10, 1_000));
    let flood: Vec<_> = std::iter::from_fn(|| admission.admit(10, 7).ok()).collect();
    assert_eq!((flood.len(), admission.requests(), admission.bytes()), (5, 5, 50));
    assert!(matches!(admission.admit(10, 7), Err(NoRoom::Tenant)));
    // Another one, and nobody: they take what is left.
    let others: Vec<_> = [8, 0, 8, 0, 0].map(|tenant| admission.admit(10, tenant).unwrap()).into();
    assert!(matches!(admission.admit(10, 0), Err(NoRoom::Engine)));
    drop((flood, others));
    assert_eq!((admission.requests(), admission.bytes()), (0, 0));
    assert!(admission.admit(1_000, 7).is_ok(), "it has nothing");
    assert_eq!(kind(admission.admit(1_001, 7)), ErrorKind::TooLarge);
    assert!(admission.admit(500, 7).is_ok(), "and still nothing");
}

#[test]
fn a_tenant_that_waits_for_room_hears_when_it_may_have_more() {
    let admission = Arc::new(Admission::new(4, 100));
    let mut held: Vec<_> = (0..2).map(|_| admission.admit(1, 7).unwrap()).collect();
    assert!(matches!(admission.admit(1, 7), Err(NoRoom::Tenant)));
    let mut waiting = admission.listen(Wants::Room(1), 7);
    assert!(!waiting.wait_timeout(Duration::ZERO));
    held.pop();
    assert!(waiting.wait_timeout(Duration::from_secs(60)));
    assert!(admission.admit(1, 7).is_ok());
}
