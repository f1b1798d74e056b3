//! How programs are fetched.

use super::programs::CADDY;

#[test]
fn two_that_need_a_program_at_once_get_the_same_one() {
    let asking: Vec<_> = (0..2).map(|_| std::thread::spawn(|| CADDY.ensure().ok())).collect();
    let got: Vec<_> = asking.into_iter().map(|one| one.join().expect("no panic")).collect();
    assert_eq!(got[0], got[1]);
}
