//! A wrong config is refused with everything that is wrong, and changes nothing.

use crate::mesh::Mesh;
use crate::terminal::Terminal;

/// Lines of the message that are shown.
const LINES: usize = 8;

pub async fn show(mesh: &Mesh, terminal: &mut Terminal) -> anyhow::Result<()> {
    terminal.section("A wrong config is refused, with all that is wrong with it");
    let refused = mesh.ctl.run(&["apply", "-f", "live/broken.yaml"]).await?;
    for line in refused
        .stderr
        .lines()
        .filter(|line| !line.trim().is_empty())
        .take(LINES)
    {
        terminal.line(line);
    }
    let answer = mesh.client().get("/v1/models").await?;
    let said = refused.stderr.contains("weigth") && refused.stderr.contains("weight");
    terminal.claim(
        refused.code == Some(1) && said && answer.status.is_success(),
        "it is refused, and traffic goes on with what was in force",
        &format!(
            "exit code {}, next request {}",
            refused.code.unwrap_or(-1),
            answer.status.as_u16()
        ),
    );
    Ok(())
}
