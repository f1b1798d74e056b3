//! Infrastructure of long-running programs in a cluster: clock, client, leader election, health, HTTP server, TLS, logs, watches,
//! shutdown.
//!
//! It is independent of the operator. `kubert` covers much of it, but requires an older kube.

pub mod authorization;
pub mod client;
pub mod clock;
pub mod health;
pub mod http;
pub mod lease;
pub mod preflight;
pub mod readiness;
pub mod server_time;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
pub mod watch;

pub use client::{ClientError, Cluster, ConfigOverrides, explain_api_error, list_pages, scoped, scoped_dynamic};
pub use clock::{Clock, ClockHand};
pub use health::HealthServer;
pub use http::{HttpError, HttpServer, ListenAddr};
pub use lease::{LeaderElector, LeaseError, LeaseHandle, LeaseSettings};
pub use preflight::PreflightError;
pub use readiness::{Readiness, ReadinessGate};
pub use server_time::ServerTime;
pub use shutdown::Shutdown;
pub use telemetry::{LogFilter, LogFormat, TelemetryError};
pub use tls::{TlsError, TlsReloader};
