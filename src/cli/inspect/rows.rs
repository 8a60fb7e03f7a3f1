//! Rows of named values, as a table for people or as JSON for programs.

use std::io::{self, Write};

use serde_json::{Map, Value};

/// One row: the same names in the same order in each.
pub(super) type Row = Vec<(&'static str, Value)>;

/// Prints the rows in aligned columns under their names, or one JSON object a line.
///
/// # Errors
/// Output that cannot be written.
pub(super) fn print(rows: &[Row], json: bool, out: &mut impl Write) -> io::Result<()> {
    if json {
        for row in rows {
            let object: Map<String, Value> =
                row.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
            writeln!(out, "{}", Value::Object(object))?;
        }
        return Ok(());
    }
    let Some(first) = rows.first() else { return writeln!(out, "nothing") };
    let names: Vec<String> = first.iter().map(|(name, _)| name.replace('_', " ")).collect();
    let cells: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|(_, value)| shown(value)).collect()).collect();
    let widths: Vec<usize> = (0..names.len())
        .map(|column| cells.iter().chain([&names]).map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    for row in std::iter::once(&names).chain(&cells) {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // Numbers end where their column does, texts begin where it does.
            match rows[0][column].1 {
                Value::Number(_) => line.push_str(&format!("{cell:>width$}  ")),
                _ => line.push_str(&format!("{cell:<width$}  ")),
            }
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            vec![("name", Value::from("a")), ("first_offset", Value::from(7)), ("note", Value::Null)],
            vec![("name", Value::from("longer")), ("first_offset", Value::from(12_345)), ("note", Value::from("x"))],
        ];
        let mut table = Vec::new();
        print(&rows, false, &mut table).unwrap();
        let table = String::from_utf8(table).unwrap();
        assert_eq!(table, "name    first offset  note\na                  7  -\nlonger         12345  x\n");
        let mut json = Vec::new();
        print(&rows[..1], true, &mut json).unwrap();
        assert_eq!(String::from_utf8(json).unwrap(), "{\"first_offset\":7,\"name\":\"a\",\"note\":null}\n");
    }
}
