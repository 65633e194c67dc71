<?php
/* The same page as app.wsgi's: ten request fields read, twelve response fields and 10,240 bytes written. */
require __DIR__ . '/count.php';
$lines = '';
foreach (['HTTP_USER_AGENT', 'HTTP_ACCEPT', 'HTTP_ACCEPT_LANGUAGE', 'HTTP_COOKIE', 'HTTP_REFERER',
          'HTTP_CACHE_CONTROL', 'HTTP_DNT', 'HTTP_X_REQUEST_ID', 'HTTP_X_TRACE', 'HTTP_X_TENANT'] as $name) {
    $lines .= $name . ': ' . ($_SERVER[$name] ?? '') . "\n";
}
$lines .= 'path: ' . ($_SERVER['SCRIPT_NAME'] ?? '') . ($_SERVER['PATH_INFO'] ?? '') . "\n";
$lines .= 'query: ' . ($_SERVER['QUERY_STRING'] ?? '') . "\n";
$body = str_pad($lines, 10240, '.');
$id = $_SERVER['HTTP_X_REQUEST_ID'] ?? '';
header('Content-Type: text/html; charset=utf-8');
header('Content-Length: ' . strlen($body));
header('Content-Language: en');
header('Cache-Control: private, max-age=0');
header('Vary: Cookie');
header('Set-Cookie: session=' . $id . '; HttpOnly', false);
header('Set-Cookie: seen=1; Path=/', false);
header('X-Request-Id: ' . $id);
header('X-Frame-Options: DENY');
header('X-Content-Type-Options: nosniff');
header('Referrer-Policy: same-origin');
header("Content-Security-Policy: default-src 'self'");
echo $body;
