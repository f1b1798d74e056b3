//! Tests of the download of third-party programs.

use super::programs::CADDY;

#[test]
fn concurrent_downloads_give_the_same_program() {
    let asking: Vec<_> = (0..2).map(|_| std::thread::spawn(|| CADDY.ensure().ok())).collect();
    let got: Vec<_> = asking.into_iter().map(|one| one.join().expect("no panic")).collect();
    assert_eq!(got[0], got[1]);
}
