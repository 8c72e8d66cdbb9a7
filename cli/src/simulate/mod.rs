//! stub for build
/// x
#[derive(clap::Args)]
pub struct Options {}
/// x
pub async fn run(_: &Options, _: impl std::io::Write) -> Result<(), crate::Failure> {
    Ok(())
}
