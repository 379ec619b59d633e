//! Runs one service of the shop: `pillion-shop catalog --port 8080 --version v2`.

use clap::Parser;

/// One service of the example shop.
#[derive(Debug, Parser)]
#[command(name = "pillion-shop", version)]
struct Cli {
    #[command(flatten)]
    args: pillion_shop::Args,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    pillion_shop::run(Cli::parse().args).await
}
