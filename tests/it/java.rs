//! The Java client: `tests/java`, a Maven project of its own.

use std::path::Path;
use std::process::Command;

use crate::common::process::shared;

#[test]
#[ignore = "needs a JDK and Maven: scripts/test.sh"]
fn the_java_client() {
    let broker = shared();
    let output = Command::new("mvn")
        .args(["--batch-mode", "--no-transfer-progress", "--file"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/java/pom.xml"))
        .arg(format!("-Dringlog.brokers={}", broker.address()))
        .arg(format!("-Doutput.directory={}/java", env!("CARGO_TARGET_TMPDIR")))
        .arg("test")
        .output()
        .expect("Maven is installed: scripts/test.sh brings it");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("Failures: 0, Errors: 0, Skipped: 0"), "{text}");
}
