//! Words that the filter language's grammar (a MySQL dialect) knows.

/// How a word may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// An ordinary name.
    Name,
    /// A keyword that is also a name.
    Soft,
    /// A keyword that is a name only after a dot or in backticks.
    Reserved,
    /// A keyword that is never a name.
    Other,
}

/// The class of a lower-case word, with the table's own copy of it unless it is a name.
pub(crate) fn classify(word: &str) -> (Class, &'static str) {
    for (class, table) in [(Class::Reserved, RESERVED), (Class::Soft, SOFT), (Class::Other, OTHER)]
    {
        if let Ok(at) = table.binary_search(&word) {
            let known = if table[at] == "rlike" { "regexp" } else { table[at] };
            return (class, known);
        }
    }
    (Class::Name, "")
}

#[rustfmt::skip]
const RESERVED: &[&str] = &[
    "add", "and", "as", "asc", "auto_increment", "between", "binary", "by", "case", "collate",
    "convert", "create", "cross", "current_date", "current_time", "current_timestamp",
    "database", "databases", "default", "delete", "desc", "describe", "distinct", "div", "drop",
    "else", "end", "escape", "exists", "explain", "false", "for", "force", "from", "group",
    "having", "if", "ignore", "in", "index", "inner", "insert", "interval", "into", "is",
    "join", "key", "left", "like", "limit", "localtime", "localtimestamp", "lock", "match",
    "maxvalue", "mod", "natural", "next", "not", "null", "on", "or", "order", "outer", "regexp",
    "rename", "replace", "right", "rlike", "schema", "select", "separator", "set", "show",
    "starts_with", "straight_join", "substr", "substring", "table", "tables", "then", "to",
    "true", "union", "unique", "update", "use", "using", "utc_date", "utc_time",
    "utc_timestamp", "values", "when", "where",
];

#[rustfmt::skip]
const SOFT: &[&str] = &[
    "accessible", "against", "asensitive", "before", "begin", "bigint", "bit", "blob", "bool",
    "both", "call", "cascade", "change", "char", "character", "charset", "check", "comment",
    "commit", "committed", "condition", "continue", "current_user", "cursor", "date",
    "datetime", "day_hour", "day_microsecond", "day_minute", "day_second", "dec", "decimal",
    "declare", "delayed", "deterministic", "distinctrow", "double", "duplicate", "each",
    "elseif", "enclosed", "enum", "escaped", "exit", "expansion", "fetch", "float", "float4",
    "float8", "foreign", "fulltext", "generated", "geometry", "geometrycollection", "get",
    "global", "grant", "high_priority", "hour_microsecond", "hour_minute", "hour_second",
    "infile", "inout", "insensitive", "int", "int1", "int2", "int3", "int4", "int8", "integer",
    "io_after_gtids", "isolation", "iterate", "json", "key_block_size", "keys", "kill",
    "language", "last_insert_id", "leading", "leave", "less", "level", "linear", "lines",
    "linestring", "load", "long", "longblob", "longtext", "loop", "low_priority", "master_bind",
    "mediumblob", "mediumint", "mediumtext", "middleint", "minute_microsecond", "minute_second",
    "mode", "modifies", "multilinestring", "multipoint", "multipolygon", "names", "nchar",
    "no_write_to_binlog", "numeric", "offset", "only", "optimize", "optimizer_costs", "option",
    "optionally", "out", "outfile", "partition", "point", "polygon", "precision", "primary",
    "procedure", "query", "range", "read", "read_write", "reads", "real", "references",
    "release", "reorganize", "repair", "repeat", "repeatable", "require", "resignal",
    "restrict", "return", "revoke", "rollback", "schemas", "second_microsecond", "sensitive",
    "serializable", "session", "share", "signal", "signed", "smallint", "spatial", "specific",
    "sql", "sql_big_result", "sql_calc_found_rows", "sql_small_result", "sqlexception",
    "sqlstate", "sqlwarning", "ssl", "start", "starting", "status", "stored", "terminated",
    "text", "than", "time", "timestamp", "tinyblob", "tinyint", "tinytext", "trailing",
    "transaction", "trigger", "truncate", "uncommitted", "undo", "unlock", "unsigned", "usage",
    "varbinary", "varchar", "varcharacter", "variables", "varying", "view", "vindex",
    "vindexes", "virtual", "vitess_keyspaces", "vitess_shards", "vitess_tablets",
    "vschema_tables", "while", "with", "write", "xor", "year", "year_month", "zerofill",
];

#[rustfmt::skip]
const OTHER: &[&str] = &[
    "_binary", "all", "alter", "analyze", "boolean", "cast", "column", "constraint", "extended",
    "full", "group_concat", "processlist", "sql_cache", "sql_no_cache", "stream",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted() {
        for table in [RESERVED, SOFT, OTHER] {
            assert!(table.is_sorted());
        }
        assert_eq!(classify("and"), (Class::Reserved, "and"));
        assert_eq!(classify("status"), (Class::Soft, "status"));
        assert_eq!(classify("workflowid"), (Class::Name, ""));
    }
}
