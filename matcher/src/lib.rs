//! The lobby.
pub mod core;
/// Flags.
#[derive(clap::Parser, Clone, Debug)]
pub struct Args {
    /// Common.
    #[command(flatten)]
    pub common: switchboard_contract::process::CommonArgs,
}
/// Runs.
///
/// # Errors
/// None yet.
pub async fn run(_args: Args, _stop: tokio_util::sync::CancellationToken) -> anyhow::Result<()> {
    Ok(())
}
