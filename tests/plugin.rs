//! `kubectl pat` on the real API server, called by the real kubectl, with the real controller at work.
//!
//! What a person sees is what is tested: stdout, stderr, the exit code, and on a terminal what stands there.
//! Debian's zsh and fish take the completions. Where one cannot be had, its test says so on stderr and is left out; with `CI=true` that is
//! a failure.

mod support;

#[path = "proxies/programs.rs"]
mod programs;

mod plugin {
    mod change;
    mod complete;
    mod docs;
    mod doctor;
    mod hand;
    mod krew;
    mod list;
    mod plan;
    mod rights;
    mod shells;
    mod story;
    mod terminal;
    mod tty;
    mod verify;
    mod wait;
}
