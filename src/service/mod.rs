//! What any long-running program in a cluster needs: a clock, a client, a lease, health and metrics, logs, an end.
//!
//! Nothing in here knows what this operator does. It must not know `api`, `token`, `controller` or any other module of
//! this crate; `main` wires them together.

pub mod authorization;
pub mod client;
pub mod clock;
pub mod gate;
pub mod health;
pub mod http;
pub mod lease;
pub mod preflight;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
pub mod watch;

pub use client::{ClientError, Cluster, explain_api_error};
pub use clock::{Clock, ClockHand};
pub use gate::{Gate, Readiness};
pub use health::Health;
pub use http::{HttpError, HttpServer, ListenAddr};
pub use lease::{Elector, LeaseError, LeaseHandle, LeaseSettings};
pub use preflight::PreflightError;
pub use shutdown::Shutdown;
pub use telemetry::{LogFilter, LogFormat, TelemetryError};
pub use tls::{Tls, TlsError};
