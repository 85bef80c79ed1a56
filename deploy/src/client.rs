//! A Phoenix client, for load and tests.
