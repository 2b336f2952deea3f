"""Tests of other folders that stand for a number of the fault table: functions, all their parameters together."""

LEASES, WIRE, REDIS = "services/jobs/test_leases.py", "services/jobs/test_wire.py", "services/jobs/test_redis.py"
GATEWAY, AUTH, BAD = (f"services/gateway/test_{name}.py" for name in ("gateway", "auth", "bad_input"))
HOSTILE, SANDBOX = "services/media/test_hostile_files.py", "services/media/test_sandbox.py"

ELSEWHERE: dict[str, tuple[int, str]] = {
    f"{LEASES}::test_a_stale_token_is_refused_everywhere": (2, "each write with a stale lease token"),
    f"{LEASES}::test_a_lapsed_lease_is_reclaimed_by_one_of_many": (4, "20 reclaimers at once"),
    f"{WIRE}::test_lost_replies_have_one_effect_and_no_error": (6, "each call of the store loses its answer"),
    f"{WIRE}::test_a_silent_connection_is_replaced": (7, "the notifications' connection goes silent"),
    f"{REDIS}::test_kill_dash_nine_loses_no_accepted_job": (8, "the embedded server SIGKILLed and restarted"),
    f"{GATEWAY}::test_shutdown_ends_streams_with_a_resume_point": (18, "shutdown with an open stream"),
    f"{AUTH}::test_without_a_valid_key_nothing_gets_in": (22, "malformed and unknown keys"),
    f"{BAD}::test_bad_submission": (25, "absurd sizes, NaN, NUL bytes, wrong values in submissions"),
    f"{BAD}::test_bad_call": (25, "wrong values in the other calls"),
    f"{HOSTILE}::test_truncated_stills": (25, "pictures cut off anywhere"),
    f"{HOSTILE}::test_truncated_clips": (25, "clips cut off anywhere"),
    f"{HOSTILE}::test_mutated_stills": (25, "pictures with random bytes changed"),
    f"{HOSTILE}::test_mutated_clips": (25, "clips with random bytes changed"),
    f"{HOSTILE}::test_mp4_headers_that_lie": (25, "headers that claim other sizes and lengths"),
    f"{HOSTILE}::test_playlists_and_references_are_not_followed": (25, "files that name other files"),
    f"{SANDBOX}::test_a_process_that_hangs_is_killed": (25, "a decoder that hangs"),
    f"{SANDBOX}::test_a_confined_process_gets_nothing": (25, "a decoder that is taken over"),
}
"""Test to number and fault."""
