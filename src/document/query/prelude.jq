# What jq has and jaq has not, or has otherwise. The assignments in here are jq's, too.

# A store has one document and outlives its filters.
def inputs: empty; def input: empty; def input_line_number: 0; def input_filename: null;
def halt($code): error("`halt` cannot end the process here"); def halt: halt(0);
def halt_error($code): error; def halt_error: error;

# Paths
def del(f): delpaths([path(f)]);
def map_values(f): .[] |= f;
def leaf_paths: paths(scalars);
def pick(f): . as $top | reduce path(f) as $p (null; setpath($p; $top | getpath($p)));
def tostream: path(def r: (.[]? | r), .; r) as $p | getpath($p)
    | reduce path(.[]?) as $q ([$p, .]; [$p + $q]);
def fromstream(f): { x: null, e: false } as $init
    | foreach f as $i ($init; if .e then $init end
        | if $i | length == 2
          then setpath(["e"]; $i[0] | length == 0) | setpath(["x"] + $i[0]; $i[1])
          else setpath(["e"]; $i[0] | length == 1) end;
        if .e then .x else empty end);
def truncate_stream(f): . as $n | null | f | if .[0] | length > $n then setpath([0]; .[0][$n:]) else empty end;

# Collections
def IN(f): any(f == .; .); def IN(xs; f): any(xs == f; .);
def INDEX(rows; key): reduce rows as $row ({}; .[$row | key | tostring] |= $row);
def INDEX(key): INDEX(.[]; key);
def toarray: if isarray then . else [.] end;

# Strings
def tonumber: if isnumber then . elif isstring then
    . as $text | fromjson | if isnumber then . else error("\($text) cannot be parsed as a number") end
    else error("\(.) cannot be parsed as a number") end;
def ascii: [.] | implode;
def ltrimstr($x): if isstring and ($x | isstring) and startswith($x) then .[$x | length:] end;
def rtrimstr($x): if isstring and ($x | isstring) and endswith($x) then .[:length - ($x | length)] end;
def join($x): reduce .[] as $i (null; (if . == null then "" else . + $x end)
    + ($i | if . == null then "" elif isboolean or isnumber then tojson end)) // "";
def cell(f): if isstring then f elif . >= [] then error("cannot format \(.) in a row")
    elif . == null then "" else tostring end;
def replace($c; $e): . / $c | join($e);
def @csv: map(cell("\"" + replace("\""; "\"\"") + "\"")) | join(",");
def @tsv: map(cell(replace("\\"; "\\\\") | replace("\t"; "\\t") | replace("\n"; "\\n")
    | replace("\r"; "\\r"))) | join("\t");
