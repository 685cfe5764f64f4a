//! How budgets of tokens stand in their present windows.

use serde_json::Value;

use super::sheet::Sheet;
use crate::output::table::Table;

/// A table for each budget of which something is leased, from the control plane's status of the resource.
pub fn usage(status: &Value, sheet: &mut Sheet) {
    let number = |value: &Value| (value.as_f64().unwrap_or(0.0) as u64).to_string();
    for budget in status["budgets"].as_array().into_iter().flatten() {
        let text = |name: &str| budget[name].as_str().unwrap_or_default();
        let mut table = Table::new(vec!["KEY", "TOKENS", "LEASED", "USED"]);
        for key in budget["mostLeased"].as_array().into_iter().flatten() {
            let name = match key["key"].as_str().unwrap_or_default() {
                "" => "(all)",
                name => name,
            };
            table.row(vec![
                name.into(),
                number(&key["tokens"]).into(),
                number(&key["leased"]).into(),
                number(&key["used"]).into(),
            ]);
        }
        let (limit, service) = (text("limit"), text("service"));
        let keys = number(&budget["keys"]);
        sheet.section(&format!(
            "Leased of \"{limit}\" for service {service} in the present window ({keys} keys; used as of the sidecars' last word)"
        ));
        sheet.table(&table);
    }
}
