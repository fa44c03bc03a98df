//! The figures as Prometheus text and as JSON.
