//! `kubectl pat` on the real API server, called by the real kubectl, with the real controller at work.
//!
//! What a person sees is what is tested: stdout, stderr, the exit code, and on a terminal what stands there.

mod support;

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
    mod story;
    mod terminal;
    mod tty;
    mod verify;
    mod wait;
}
