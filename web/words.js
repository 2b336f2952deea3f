// What the service says, in words for the viewer.

/** An error of the service, and what to do about it. */
export function inWords(error) {
  const again = error.retryAfterSeconds ? ` Try again in ${waiting(error.retryAfterSeconds)}.` : "";
  switch (error.code) {
    case "unauthenticated":
      if (error.reason === "TOKEN_EXPIRED") return "The access token has expired. Ask for a new one and put it in under Settings.";
      return "This service asks for an access token. Put a valid one in under Settings, “Access token”.";
    case "permission_denied":
      return `The access token does not allow this: ${error.message}.`;
    case "resource_exhausted":
    case "rate_limit_exceeded":
      return `There is no room for this now: ${error.message}.${again}`;
    case "not_found":
      return "This session is not there, or no longer.";
    case "out_of_range":
      return "That part of the video is no longer kept.";
    case "failed_precondition":
      return `That cannot be done now: ${error.message}.`;
    case "unavailable":
      return `The service cannot be reached: ${error.message}.${again}`;
    case "cancelled":
      return "The session was cancelled.";
    case "aborted":
      return `The video could not be finished: ${error.message}.`;
    default:
      return `${error.message}.`;
  }
}

/** A time of the video: 1:05. */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

/** A length of time: 4 s, 3 min. */
export function waiting(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  return seconds < 90 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`;
}
