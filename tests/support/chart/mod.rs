//! Helm, a release of the chart, and the processes that its Deployments describe.

pub mod deployed;
pub mod helm;
pub mod next;
pub mod release;
pub mod velero;
