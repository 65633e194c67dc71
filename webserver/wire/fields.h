/*
 * Request fields that both ends know by number: X(SYMBOL, "name in lower case", "CGI variable").
 * The number spares the plugin building a key for each request. Add at the end only within one wire version.
 */
#ifndef WEBSERVER_WIRE_FIELDS_H
#define WEBSERVER_WIRE_FIELDS_H

#define WIRE_KNOWN_FIELDS(X)                                                                                           \
	X(HOST, "host", "HTTP_HOST")                                                                                   \
	X(USER_AGENT, "user-agent", "HTTP_USER_AGENT")                                                                 \
	X(ACCEPT, "accept", "HTTP_ACCEPT")                                                                             \
	X(ACCEPT_ENCODING, "accept-encoding", "HTTP_ACCEPT_ENCODING")                                                  \
	X(ACCEPT_LANGUAGE, "accept-language", "HTTP_ACCEPT_LANGUAGE")                                                  \
	X(ACCEPT_CHARSET, "accept-charset", "HTTP_ACCEPT_CHARSET")                                                     \
	X(ACCEPT_RANGES, "accept-ranges", "HTTP_ACCEPT_RANGES")                                                        \
	X(REFERER, "referer", "HTTP_REFERER")                                                                          \
	X(COOKIE, "cookie", "HTTP_COOKIE")                                                                             \
	X(CONTENT_TYPE, "content-type", "CONTENT_TYPE")                                                                \
	X(CONTENT_LENGTH, "content-length", "CONTENT_LENGTH")                                                          \
	X(CONNECTION, "connection", "HTTP_CONNECTION")                                                                 \
	X(CACHE_CONTROL, "cache-control", "HTTP_CACHE_CONTROL")                                                        \
	X(PRAGMA, "pragma", "HTTP_PRAGMA")                                                                             \
	X(ORIGIN, "origin", "HTTP_ORIGIN")                                                                             \
	X(AUTHORIZATION, "authorization", "HTTP_AUTHORIZATION")                                                        \
	X(IF_MODIFIED_SINCE, "if-modified-since", "HTTP_IF_MODIFIED_SINCE")                                            \
	X(IF_NONE_MATCH, "if-none-match", "HTTP_IF_NONE_MATCH")                                                        \
	X(IF_MATCH, "if-match", "HTTP_IF_MATCH")                                                                       \
	X(IF_UNMODIFIED_SINCE, "if-unmodified-since", "HTTP_IF_UNMODIFIED_SINCE")                                      \
	X(IF_RANGE, "if-range", "HTTP_IF_RANGE")                                                                       \
	X(RANGE, "range", "HTTP_RANGE")                                                                                \
	X(EXPECT, "expect", "HTTP_EXPECT")                                                                             \
	X(TE, "te", "HTTP_TE")                                                                                         \
	X(UPGRADE, "upgrade", "HTTP_UPGRADE")                                                                          \
	X(UPGRADE_INSECURE_REQUESTS, "upgrade-insecure-requests", "HTTP_UPGRADE_INSECURE_REQUESTS")                    \
	X(DNT, "dnt", "HTTP_DNT")                                                                                      \
	X(X_FORWARDED_FOR, "x-forwarded-for", "HTTP_X_FORWARDED_FOR")                                                  \
	X(X_FORWARDED_PROTO, "x-forwarded-proto", "HTTP_X_FORWARDED_PROTO")                                            \
	X(X_FORWARDED_HOST, "x-forwarded-host", "HTTP_X_FORWARDED_HOST")                                               \
	X(X_REAL_IP, "x-real-ip", "HTTP_X_REAL_IP")                                                                    \
	X(X_REQUESTED_WITH, "x-requested-with", "HTTP_X_REQUESTED_WITH")                                               \
	X(X_REQUEST_ID, "x-request-id", "HTTP_X_REQUEST_ID")                                                           \
	X(FORWARDED, "forwarded", "HTTP_FORWARDED")                                                                    \
	X(VIA, "via", "HTTP_VIA")                                                                                      \
	X(TRANSFER_ENCODING, "transfer-encoding", "HTTP_TRANSFER_ENCODING")                                            \
	X(TRAILER, "trailer", "HTTP_TRAILER")                                                                          \
	X(KEEP_ALIVE, "keep-alive", "HTTP_KEEP_ALIVE")                                                                 \
	X(DATE, "date", "HTTP_DATE")                                                                                   \
	X(SEC_FETCH_DEST, "sec-fetch-dest", "HTTP_SEC_FETCH_DEST")                                                     \
	X(SEC_FETCH_MODE, "sec-fetch-mode", "HTTP_SEC_FETCH_MODE")                                                     \
	X(SEC_FETCH_SITE, "sec-fetch-site", "HTTP_SEC_FETCH_SITE")                                                     \
	X(SEC_FETCH_USER, "sec-fetch-user", "HTTP_SEC_FETCH_USER")                                                     \
	X(SEC_CH_UA, "sec-ch-ua", "HTTP_SEC_CH_UA")                                                                    \
	X(SEC_CH_UA_MOBILE, "sec-ch-ua-mobile", "HTTP_SEC_CH_UA_MOBILE")                                               \
	X(SEC_CH_UA_PLATFORM, "sec-ch-ua-platform", "HTTP_SEC_CH_UA_PLATFORM")                                         \
	X(SEC_WEBSOCKET_KEY, "sec-websocket-key", "HTTP_SEC_WEBSOCKET_KEY")                                            \
	X(SEC_WEBSOCKET_VERSION, "sec-websocket-version", "HTTP_SEC_WEBSOCKET_VERSION")                                \
	X(SEC_WEBSOCKET_PROTOCOL, "sec-websocket-protocol", "HTTP_SEC_WEBSOCKET_PROTOCOL")                             \
	X(SEC_WEBSOCKET_EXTENSIONS, "sec-websocket-extensions", "HTTP_SEC_WEBSOCKET_EXTENSIONS")                       \
	X(X_CSRFTOKEN, "x-csrftoken", "HTTP_X_CSRFTOKEN")                                                              \
	X(X_CSRF_TOKEN, "x-csrf-token", "HTTP_X_CSRF_TOKEN")                                                           \
	X(PRIORITY, "priority", "HTTP_PRIORITY")                                                                       \
	X(FROM, "from", "HTTP_FROM")                                                                                   \
	X(MAX_FORWARDS, "max-forwards", "HTTP_MAX_FORWARDS")                                                           \
	X(SAVE_DATA, "save-data", "HTTP_SAVE_DATA")                                                                    \
	X(PROXY_AUTHORIZATION, "proxy-authorization", "HTTP_PROXY_AUTHORIZATION")                                      \
	X(TRACEPARENT, "traceparent", "HTTP_TRACEPARENT")

enum wire_known {
	WIRE_UNKNOWN = 0,
#define X(symbol, name, cgi) WIRE_FIELD_##symbol,
	WIRE_KNOWN_FIELDS(X)
#undef X
		WIRE_KNOWN_COUNT
};

#endif
