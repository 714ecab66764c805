//! Prints the summary of well-known networks and draws them.
//!
//! Run with `cargo run --release --bin networks`; the pictures lie in `target/networks/`.

use std::fs;
use std::path::Path;

use layerfn::Summary;
use layerfn::prelude::*;
use layerfn_examples::architectures as nets;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = Path::new("target/networks");
    fs::create_dir_all(dir)?;
    let summaries: [(&str, Summary); 8] = [
        ("lenet", Network::new(nets::lenet).summary([(1, 1, 28, 28)])?),
        ("resnet20", Network::new(nets::resnet20).summary([(1, 3, 32, 32)])?),
        ("resnet18", Network::new(nets::resnet18).summary([(1, 3, 224, 224)])?),
        ("mobilenet", network! { nets::mobilenet(10) }.summary([(1, 3, 64, 64)])?),
        ("inception", network! { nets::inception(64, 128, 32, 32) }.summary([(1, 192, 28, 28)])?),
        ("lstm", network! { nets::lstm_classifier(32, 5) }.summary([(4, 10, 16)])?),
        ("unet", network! { nets::unet(16, 2) }.summary([(1, 1, 64, 64)])?),
        ("autoencoder", network! { nets::autoencoder(16) }.summary([(1, 784)])?),
    ];
    for (name, summary) in summaries {
        println!("{name}\n{summary}\n");
        fs::write(dir.join(format!("{name}.svg")), summary.to_svg())?;
        fs::write(dir.join(format!("{name}.dot")), summary.to_dot())?;
        fs::write(dir.join(format!("{name}.mmd")), summary.to_mermaid())?;
    }
    println!("pictures: {}", dir.display());
    Ok(())
}
