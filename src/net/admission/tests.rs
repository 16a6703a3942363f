use super::*;

fn admission() -> Admission {
    Admission::new().expect("memory")
}

fn at(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// A port of an address that is numbered.
fn peer(address: u32, port: u16) -> SocketAddr {
    (std::net::Ipv4Addr::from(0x0a00_0000 + address), port).into()
}

/// How many connects there are in so many seconds, where each is tried every millisecond with one of these peers, and
/// fails at once.
fn connects(admission: &Admission, seconds: u64, peers: impl Fn(usize) -> SocketAddr) -> usize {
    let mut connects = 0;
    for now in (0..seconds * 1000).map(at) {
        if let Ok(admitted) = admission.admit(now, peers(connects), false) {
            connects += 1;
            admission.failed(now, admitted);
        }
    }
    connects
}

#[test]
fn connects_in_all_have_a_limit() {
    let strangers = |number: usize| peer(number as u32 * 7919, 9000);
    let in_ten_seconds = connects(&admission(), 10, strangers);
    let most = (CONNECTS_PER_SECOND * 11) as usize;
    assert!(in_ten_seconds <= most, "{in_ten_seconds}");
    // A few share a row.
    assert!(in_ten_seconds >= most - 16, "{in_ten_seconds}");
}

#[test]
fn an_address_that_never_answers_has_one_connect_a_second_and_then_one_a_minute() {
    let ports = |number: usize| peer(1, 2000 + 100 * number as u16);
    let in_ten_seconds = connects(&admission(), 10, ports);
    assert!((9..=10).contains(&in_ten_seconds), "{in_ten_seconds}");
    let in_a_while = connects(&admission(), 200, ports);
    let most = FAILURES as usize + 4;
    assert!((most - 2..=most).contains(&in_a_while), "{in_a_while}");
}

#[test]
fn a_few_ports_of_an_address_are_tried_at_the_same_time() {
    let admission = admission();
    let mut taken = Vec::new();
    for second in 0..20 {
        let port = 9000 + second;
        let admitted = admission.admit(at(1000 * u64::from(second)), peer(1, port), false);
        match taken.len() < PORTS_PER_ADDRESS {
            true => taken.push(admitted.expect("there is a place")),
            false => assert_eq!(admitted.expect_err("all are taken"), Refused::Address),
        }
    }
    admission.ended(taken.remove(1));
    let freed = admission.admit(at(20_000), peer(1, 9100), false);
    freed.expect("a place was given back");
    // What dead processes had taken comes back.
    let later = at(20_000) + Duration::from_micros(LEASE);
    let again = admission.admit(later, peer(1, 9101), false);
    again.expect("nobody is connected for so long");
}

#[test]
fn who_answers_is_free_and_so_are_further_first_connects_to_its_address() {
    let admission = admission();
    for port in 0..200 {
        let one = peer(1, 9000 + port);
        let mut admitted = admission.admit(at(5), one, false).expect("all answer");
        admission.answered(&mut admitted);
        admission.ended(admitted);
    }
    for _ in 0..1000 {
        let admitted = admission.admit(at(5), peer(1, 9000), false);
        let admitted = admitted.expect("it has answered");
        assert!(!admitted.is_limited());
        // What was good once may be down for a while.
        admission.failed(at(5), admitted);
    }
    let mut others = Vec::new();
    while let Ok(admitted) = admission.admit(at(5), peer(1, 2000 + others.len() as u16), false) {
        others.push(admitted);
    }
    assert_eq!(others.len(), PORTS_PER_ADDRESS, "these have not");
}

#[test]
fn failures_at_an_address_make_its_other_ports_wait_though_one_has_answered() {
    let admission = admission();
    let good = peer(1, 9000);
    let mut admitted = admission.admit(at(0), good, false).expect("the first");
    admission.answered(&mut admitted);
    let wrong = |number: usize| peer(1, 10_100 + number as u16);
    assert!(connects(&admission, 30, wrong) <= FAILURES as usize + 1);
    let refused = admission.admit(at(30_000), wrong(99), false);
    assert_eq!(refused.expect_err("too many failed"), Refused::Address);
    admission
        .admit(at(30_000), good, false)
        .expect("it has answered");
}

#[test]
fn a_port_that_begins_to_answer_speaks_for_its_address() {
    let admission = admission();
    assert!(connects(&admission, 100, |number| peer(1, 9000 + number as u16)) > 0);
    let now = at(200_000);
    let mut admitted = admission
        .admit(now, peer(1, 2000), false)
        .expect("now and then");
    admission.answered(&mut admitted);
    admission
        .admit(now, peer(1, 2001), false)
        .expect("the failures are forgotten");
}

#[test]
fn ports_of_other_services_are_for_those_for_whom_somebody_vouches() {
    let admission = admission();
    let refused = admission.admit(at(0), peer(1, 25), false);
    assert_eq!(refused.expect_err("it is a mail server"), Refused::Port);
    let vouched = admission.admit(at(0), peer(1, 25), true);
    assert!(vouched.expect("the operator says so").is_limited());
}

#[test]
fn further_connects_are_paid_for_later() {
    let admission = admission();
    let admitted = admission.admit(at(0), peer(1, 9000), false).expect("one");
    admission.connected_again(at(10), &admitted);
    admission.ended(admitted);
    let early = admission.admit(at(1500), peer(1, 9001), false);
    assert_eq!(early.expect_err("two seconds are owed"), Refused::Address);
    let late = admission.admit(at(2000), peer(1, 9001), false);
    late.expect("two seconds are over");
}

#[test]
fn all_hosts_of_an_ipv6_network_count_as_one() {
    let admission = admission();
    let host = |number: u16| SocketAddr::from(([0x2001, 0xdb8, 0, 1, 0, 0, 0, number], 9000));
    let first = admission.admit(at(0), host(1), false);
    first.expect("one a second");
    let second = admission.admit(at(0), host(2), false);
    assert_eq!(second.expect_err("one a second"), Refused::Address);
}
