//! The report of a training in a real browser, where one is installed.

use std::fs;
use std::path::Path;
use std::process::Command;

use layerfn::metrics::Confusion;
use layerfn::prelude::*;
use layerfn::report::Report;
use tempfile::TempDir;

/// Says, in the title of the page, what the browser has made of it.
const LOOK: &str = r#"<script>
addEventListener("load", () => {
    const { scrollWidth, clientWidth } = document.documentElement;
    document.title = JSON.stringify({
        fits: scrollWidth <= clientWidth,
        images: [...document.images].filter(image => image.naturalWidth > 0).length,
        drawings: [...document.querySelectorAll("svg")].filter(svg => svg.getBoundingClientRect().height > 20).length,
        requests: performance.getEntriesByType("resource").filter(entry => !entry.name.startsWith("data:")).length,
        small: [...document.querySelectorAll("th, td, h2, figcaption")]
            .filter(cell => parseFloat(getComputedStyle(cell).fontSize) < 11).length,
    });
});
</script>"#;

fn browser() -> Option<&'static str> {
    ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success()))
}

/// The page after its scripts have run, in a window of this width.
fn rendered(browser: &str, page: &Path, width: u32) -> String {
    let profile = TempDir::new().unwrap();
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--window-size={width},900"))
        .args(["--virtual-time-budget=5000", "--dump-dom"])
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_report_is_whole_in_a_browser() -> layerfn::Result<()> {
    let folder = TempDir::new().unwrap();
    let net = network! { < c: conv(4, (3, 3)) -> bn -> residual { relu } -> out: affine(10) > };
    let mut confusion = Confusion::new(10);
    confusion.add(&Tensor::eye(10, DType::F32, &Device::Cpu)?, &Tensor::arange(0u32, 10, &Device::Cpu)?)?;
    let mut report = Report::new("Ten <classes>");
    report.facts("Result", [("test accuracy", "98.2 %"), ("epochs", "10")]);
    report.chart(
        "Loss",
        "step",
        [("training", (0..50).map(|n| (f64::from(n), 1.0 / f64::from(n + 1))).collect())],
    )?;
    report.confusion("Test set", &confusion, &[]);
    report.network("Network", &net.summary([(1, 1, 12, 12)])?);
    let image = Tensor::arange(0f32, 64., &Device::Cpu)?.reshape((1, 8, 8))?;
    report.images("Mistakes", (0..40).map(|n| (image.clone(), format!("{n} read as 3"))))?;
    let page = folder.path().join("report.html");
    report.save(&page)?;

    let Some(browser) = browser() else {
        eprintln!("skipped: no Chromium is installed");
        return Ok(());
    };
    let html = fs::read_to_string(&page).unwrap();
    fs::write(&page, html.replace("</body>", &format!("{LOOK}</body>"))).unwrap();
    assert!(html.contains("</body>"));
    for width in [1280, 500] {
        let dom = rendered(browser, &page, width);
        let title = dom.split("<title>").nth(1).and_then(|rest| rest.split("</title>").next());
        assert_eq!(
            title,
            Some(r#"{"fits":true,"images":40,"drawings":2,"requests":0,"small":0}"#),
            "{width} pixels wide:\n{dom:.500}"
        );
    }
    Ok(())
}
