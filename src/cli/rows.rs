//! Rows of named values, as a table for people or as JSON for programs.

use std::io::{self, Write};

use clap::ValueEnum;
use serde_json::{Map, Value};

/// The form of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    #[default]
    Table,
    /// One JSON object a line, for programs
    Json,
}

/// One row: the same names in the same order in each.
pub(super) type Row = Vec<(&'static str, Value)>;

/// Prints the rows in aligned columns under their names, or one JSON object a line.
///
/// # Errors
/// Output that cannot be written.
pub(super) fn print(rows: &[Row], format: Format, out: &mut impl Write) -> io::Result<()> {
    if format == Format::Json {
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
    let numbers: Vec<bool> = (0..names.len()).map(|column| rows.iter().any(|row| row[column].1.is_number())).collect();
    for row in std::iter::once(&names).chain(&cells) {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // Numbers end where their column does, texts begin where it does.
            if numbers[column] {
                line.push_str(&format!("{cell:>width$}  "));
            } else {
                line.push_str(&format!("{cell:<width$}  "));
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
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Array(values) if values.is_empty() => "-".to_owned(),
        Value::Array(values) => values.iter().map(shown).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            vec![("name", Value::from("a")), ("first_offset", Value::Null), ("note", Value::Null)],
            vec![("name", "longer".into()), ("first_offset", 12_345.into()), ("note", vec![1, 2].into())],
        ];
        let mut table = Vec::new();
        print(&rows, Format::Table, &mut table).unwrap();
        let table = String::from_utf8(table).unwrap();
        assert_eq!(table, "name    first offset  note\na                  -  -\nlonger         12345  1,2\n");
        let mut json = Vec::new();
        print(&rows[..1], Format::Json, &mut json).unwrap();
        assert_eq!(String::from_utf8(json).unwrap(), "{\"first_offset\":null,\"name\":\"a\",\"note\":null}\n");
    }
}
