# What jq has and jaq has not, or has otherwise. The grammar in here is jq's, too.

# Types and errors
def error(f): f | error;
def isnan: type == "number" and . != .;
def isinfinite: if type == "number" then . == infinite or . == -infinite
    else error("\(type) (\(tojson)) number required") end;
def isnormal: type == "number" and (. == 0 or isnan or isinfinite | not);
def values: select(. != null); def nulls: select(. == null);
def booleans: select(type == "boolean"); def numbers: select(type == "number");
def strings: select(type == "string"); def arrays: select(type == "array");
def objects: select(type == "object");
def iterables: select(type == "array" or type == "object");
def scalars: select(type != "array" and type != "object");
def finites: select(isinfinite or isnan | not); def normals: select(isnormal);
def isempty(g): label $go | (g | false, break $go), true;
def map_values(f): .[] |= f;

# A store has one document and outlives its filters.
def inputs: empty; def input: error("No more inputs");
def input_line_number: 0; def input_filename: null;
def halt($code): error("`halt` cannot end the process here"); def halt: halt(0);
def halt_error($code): error; def halt_error: error;
def get_search_list: []; def have_literal_numbers: true; def have_decnum: true;

# Generators: recursion of our own is bounded.
def repeat(f): def _r: f, _r; _r;
def recurse(f): def _r: ., (f | _r); _r;
def recurse: recurse(.[]?);
def recurse(f; cond): def _r: ., (f | select(cond) | _r); _r;
def while(cond; update): def _r: if cond then ., (update | _r) else empty end; _r;
def until(cond; update): def _r: if cond then . else update | _r end; _r;
def range($x): range(0; $x; 1);
def range($from; $to): range($from; $to; 1);
def limit($n; f): if $n < 0 then error("limit doesn't support negative count") else _limit($n; f) end;
def skip($n; f): if $n < 0 then error("skip doesn't support negative count") else _skip($n; f) end;
def nth($n): .[$n];
def nth($n; f): if $n < 0 then error("nth doesn't support negative indices") else first(skip($n; f)) end;
def combinations: if length == 0 then [] else .[0][] as $x | (.[1:] | combinations) as $w | [$x] + $w end;
def combinations(n): . as $dot | [range(n)] | map($dot) | combinations;
def walk(f): def w: if type == "object" then map_values(w) elif type == "array" then map(w) else . end | f; w;
def isvalid(f): try (f | true) catch false;

# Paths
def del(f): delpaths([path(f)]);
def paths: path(..) | select(length > 0);
def paths(f): path(.. | select(f)) | select(length > 0);
def leaf_paths: paths(scalars);
def pick(f): . as $top | reduce path(f) as $p (null; setpath($p; $top | getpath($p)));
def to_entries: [keys_unsorted[] as $k | {key: $k, value: .[$k]}];
def from_entries: reduce .[] as $x ({};
    . + {(if $x.key == false then "false"
          else $x | .key // .k // .name // .Name // .K // .Key | if . == null then "null" else . end
               | if type == "string" then . else tojson end end):
         ($x | if has("value") then .value elif has("v") then .v else .Value end)});
def with_entries(f): to_entries | map(f) | from_entries;
def tostream: path(def r: (.[]? | r), .; r) as $p | getpath($p)
    | reduce path(.[]?) as $q ([$p, .]; [$p + $q]);
def fromstream(f): { x: null, e: false } as $init
    | foreach f as $i ($init; if .e then $init end
        | if $i | length == 2
          then setpath(["e"]; $i[0] | length == 0) | setpath(["x"] + $i[0]; $i[1])
          else setpath(["e"]; $i[0] | length == 1) end;
        if .e then .x else empty end);
def truncate_stream(f): . as $n | null | f | . as $input
    | if (.[0] | length) > $n then setpath([0]; .[0][$n:]) else empty end;

# Collections
def _flatten($x): reduce .[] as $i ([];
    if $i | type == "array" and $x != 0 then . + ($i | _flatten($x - 1)) else . + [$i] end);
def flatten($x): if $x < 0 then error("flatten depth must not be negative") else _flatten($x) end;
def flatten: _flatten(1e9);
def add(f): reduce f as $x (null; . + $x);
def add: add(.[]);
def in(xs): . as $x | xs | has($x);
def inside(xs): . as $x | xs | contains($x);
def indices($i): _indices($i);
def index($i): indices($i) | .[0];
def rindex($i): indices($i) | .[-1:][0];
def _keyed(what): if type == "array" then .
    else error("\(type) (\(tojson)) cannot be \(what), as it is not an array") end;
def sort_by(f): _keyed("sorted") | _sort_by(f);
def group_by(f): _keyed("grouped") | _group_by(f);
def unique_by(f): [_keyed("grouped") | _group_by(f)[] | .[0]];
def unique: sort | [_group_by(.)[] | .[0]];
def min_by(f): reduce min_by_or_empty(f) as $x (null; $x);
def max_by(f): reduce max_by_or_empty(f) as $x (null; $x);
def transpose: [range(0; map(length) | max // 0) as $i | [.[][$i]]];
def all(g; cond): isempty(first(g | cond and empty));
def any(g; cond): isempty(first(g | cond or empty)) | not;
def all(cond): all(.[]; cond); def any(cond): any(.[]; cond);
def all: all(.[]; .); def any: any(.[]; .);
def IN(f): any(f == .; .); def IN(xs; f): any(xs == f; .);
def INDEX(rows; key): reduce rows as $row ({}; .[$row | key | tostring] |= $row);
def INDEX(key): INDEX(.[]; key);
def JOIN($idx; key): [.[] | [., $idx[key]]];
def JOIN($idx; rows; key): rows | [., $idx[key]];
def JOIN($idx; rows; key; join): rows | [., $idx[key]] | join;
def ascii: [.] | implode;
def toarray: if type == "array" then . else [.] end;

# Strings and dates
def split($sep): _split($sep);
def match($re; $flags): _match($re; $flags) | .[];
def _re(f): if type == "string" then [., null] elif type == "array" and length > 0 then .[0:2]
    else error("\(type) not a string or array") end | f;
def match($val): ($val | _re(.)) as [$re, $flags] | match($re; $flags);
def test($re; $flags): _test($re; $flags);
def test($val): ($val | _re(.)) as [$re, $flags] | _test($re; $flags);
def _capture: [.captures | .[] | select(.name != null) | {key: .name, value: .string}] | from_entries;
def capture($re; $flags): match($re; $flags) | _capture;
def capture($val): match($val) | _capture;
def scan($re; $flags): match($re; "g" + $flags)
    | if .captures | length > 0 then [.captures | .[] | .string] else .string end;
def scan($re): scan($re; null);
def split($re; $flags): . as $s
    | [foreach ((match($re; $flags + "g") | [.offset, .length]), null) as $m ([0, null];
        if $m == null then [.[0], $s[.[0]:]] else [($m | add), $s[.[0]:$m[0]]] end; .[1])];
def splits($re; $flags): split($re; $flags) | .[];
def splits($re): splits($re; null);
def sub($re; str; $flags): _sub($re; str; $flags);
def sub($re; str): _sub($re; str; null);
def gsub($re; str; $flags): _sub($re; str; $flags + "g");
def gsub($re; str): _sub($re; str; "g");
def todateiso8601: strftime("%Y-%m-%dT%H:%M:%SZ");
def fromdateiso8601: strptime("%Y-%m-%dT%H:%M:%SZ") | mktime;
def todate: todateiso8601; def fromdate: fromdateiso8601; def date: todate;
def dateadd(u; n): . + n; def datesub(u; n): . - n;
