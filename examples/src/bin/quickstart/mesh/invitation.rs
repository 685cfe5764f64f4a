//! What one can try while everything is up.

use super::{HOST, Mesh};
use crate::terminal::Terminal;

impl Mesh {
    /// What one can try while everything is up.
    pub fn print_invitation(&self, terminal: &mut Terminal) {
        let caller = self.caller.outbound;
        let context = self.ctl.context.display();
        let ctl = self.ctl.binary.display();
        let metrics = self.caller.metrics;
        let body = format!(
            r#"{{"model": "{}", "stream": true, "messages": [{{"role": "user", "content": "Hello"}}]}}"#,
            self.model
        );
        terminal.subject("It stays up. Try it; Ctrl-C ends everything.");
        terminal.line(format!(
            "curl -N http://{caller}/v1/chat/completions -H 'Host: {HOST}' -d '{body}'"
        ));
        terminal.line(format!(
            "openai.OpenAI(base_url=\"http://{caller}/v1\", api_key=\"-\", default_headers={{\"Host\": \"{HOST}\"}})"
        ));
        terminal.line(format!("export OUTRIGGER_CONTEXT={context}"));
        terminal.line(format!("{ctl} status"));
        terminal.line(format!("{ctl} get services,routes,workloads"));
        terminal.line(format!("{ctl} delete route chat-gold"));
        terminal.line(format!(
            "curl -s http://{metrics}/metrics | grep outrigger_requests_total"
        ));
        terminal.line(format!("curl -s http://{}/config", self.caller.admin));
        terminal.line(format!(
            "curl -s http://{}/metrics        # the control plane's",
            self.control_plane.metrics
        ));
        terminal.note(format!(
            "resources: {}   logs: {}",
            self.resources.display(),
            self.directory.join("logs").display()
        ));
    }
}
