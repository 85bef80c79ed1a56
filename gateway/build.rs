//! Has the gateway compiled anew when its page was built anew. That itself is the work of npm: without it, no page.

// It is how a build script talks to cargo.
#![allow(clippy::print_stdout)]

use std::path::Path;

fn main() {
    // What is watched and is not there would have everything compiled anew each time. The folder above it changes, too,
    // once the page is there.
    let watched = if Path::new("web/dist").is_dir() { "web/dist" } else { "web" };
    println!("cargo::rerun-if-changed={watched}");
}
