"""The SQL functions that a recipe may call: each answers from its arguments alone, everywhere the same."""

from __future__ import annotations

FAMILIES = {
    "operators": (
        "+ - * / // % ^ ** & | ~ << >> @ || ^@ && @> <@ ->> -> ~~ !~~ ~~* !~~* ~~~ !__postfix like_escape "
        "not_like_escape ilike_escape not_ilike_escape add subtract multiply divide xor"
    ),
    "choices": ("if nullif greatest least typeof"),
    "numbers": (
        "abs ceil ceiling floor round round_even roundbankers trunc sign signbit sqrt cbrt exp ln log log2 log10 pow "
        "power mod fmod fdiv gcd lcm greatest_common_divisor least_common_multiple factorial even degrees radians pi "
        "sin cos tan cot asin acos atan atan2 sinh cosh tanh asinh acosh atanh gamma lgamma isnan isinf isfinite "
        "bit_count"
    ),
    "texts": (
        "lower upper lcase ucase length len char_length character_length length_grapheme strlen octet_length "
        "bit_length left right left_grapheme right_grapheme substr substring substring_grapheme trim ltrim rtrim "
        "strpos instr position contains starts_with ends_with prefix suffix replace translate overlay reverse concat "
        "concat_ws lpad rpad printf format split_part string_split str_split split string_to_array string_split_regex "
        "str_split_regex regexp_split_to_array regexp_matches regexp_full_match regexp_extract regexp_extract_all "
        "regexp_replace regexp_escape strip_accents nfc_normalize ascii ord unicode chr hamming mismatches jaccard "
        "parse_filename parse_dirname parse_dirpath parse_path"
    ),
    "digests": (
        "md5 md5_number md5_number_lower md5_number_upper sha1 sha256 hex to_hex unhex from_hex bin to_binary unbin "
        "from_binary base64 to_base64 from_base64 encode decode url_encode url_decode"
    ),
    "dates": (
        "date_part datepart year month day hour minute second millisecond microsecond quarter week weekofyear "
        "yearweek dayofweek dayofmonth dayofyear weekday isodow isoyear dayname monthname decade century millennium "
        "era julian date_trunc datetrunc date_diff datediff date_sub datesub date_add last_day days_in_month "
        "make_date make_time make_timestamp strftime strptime try_strptime epoch epoch_ms epoch_us epoch_ns "
        "to_timestamp timezone time_bucket to_millennia to_centuries to_decades to_years to_quarters to_months "
        "to_weeks to_days to_hours to_minutes to_seconds to_milliseconds to_microseconds"
    ),
    "lists": (
        "list_value list_pack list_contains list_has array_contains array_has list_has_any array_has_any list_has_all "
        "array_has_all list_position list_indexof array_position array_indexof list_extract list_element "
        "array_extract element_at list_slice array_slice list_concat list_cat array_concat array_cat list_append "
        "array_append array_push_back list_prepend array_prepend array_push_front array_pop_back array_pop_front "
        "list_distinct array_distinct list_unique array_unique list_sort array_sort list_reverse_sort "
        "array_reverse_sort list_reverse array_reverse list_filter array_filter list_transform array_transform "
        "list_apply array_apply list_intersect array_intersect list_where array_where list_select array_select "
        "list_zip array_zip flatten cardinality array_length array_to_string list_sum list_min list_max list_avg "
        "list_median list_count list_product list_first list_last list_any_value list_bool_and list_bool_or "
        "list_stddev_pop list_stddev_samp list_var_pop list_var_samp list_string_agg list_distance "
        "list_cosine_distance list_cosine_similarity list_dot_product list_inner_product array_value array_distance "
        "array_cosine_distance array_cosine_similarity array_dot_product array_inner_product"
    ),
    "structs and maps": (
        "struct_pack row struct_extract struct_extract_at struct_keys struct_values map map_keys map_values "
        "map_entries map_extract map_extract_value map_contains map_contains_entry map_contains_value "
        "map_from_entries map_concat union_extract union_tag union_value"
    ),
    "json": (
        "json json_extract json_extract_string json_extract_path json_extract_path_text json_value json_exists "
        "json_type json_valid json_array_length json_keys json_contains json_structure json_array json_object to_json "
        "json_quote array_to_json row_to_json json_merge_patch from_json json_transform"
    ),
}
ALLOWED = frozenset(name for names in FAMILIES.values() for name in names.split())

# Of those that are refused: what depends on chance, the clock or the machine, for a message that says so.
_CHANGING = (
    "random setseed uuid uuidv4 uuidv7 gen_random_uuid now today ago age current_date current_time "
    "current_timestamp current_localtime current_localtimestamp localtime localtimestamp get_current_time "
    "get_current_timestamp transaction_timestamp pg_sleep sleep_ms pg_postmaster_start_time pg_conf_load_time "
    "getenv getvariable version current_setting current_user current_query current_database current_schema "
    "current_catalog session_user user nextval currval setval txid_current inet_client_addr inet_server_addr "
    "get_block_size"
)
CHANGING = frozenset(_CHANGING.split())

# Where a number that is not a number goes in and comes out again.
_CARRIES_NAN = (
    "+ - * / // % @ abs ceil ceiling floor round round_even roundbankers trunc sqrt cbrt exp ln log log2 log10 "
    "mod fmod fdiv even degrees radians sin cos tan cot asin acos atan atan2 sinh cosh tanh asinh acosh atanh "
    "gamma lgamma add subtract multiply divide"
)
CARRIES_NAN = frozenset(_CARRIES_NAN.split())

# Function → how many times longer than its argument its text may be, whatever the argument.
_LONGER = {
    8: "bin to_binary",
    6: "to_json json_quote json_array json_object array_to_json row_to_json json url_encode regexp_escape",
    2: "hex to_hex base64 to_base64 upper ucase",
}
LONGER = {name: times for times, names in _LONGER.items() for name in names.split()}

# Functions that may put an argument in once for each character or element of the first.
_MULTIPLIES = (
    "replace regexp_replace array_to_string list_string_agg concat_ws list_transform array_transform list_apply "
    "array_apply strftime"
)
MULTIPLIES = frozenset(_MULTIPLIES.split())
