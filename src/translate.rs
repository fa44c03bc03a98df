//! H1 head <-> H2 head.
