<?php
/* What this PHP is, for verification: the benchmark refuses a PHP whose opcache does not cache. */
header('Content-Type: application/json');
$status = function_exists('opcache_get_status') ? @opcache_get_status(false) : false;
echo json_encode([
    'version' => PHP_VERSION,
    'sapi' => PHP_SAPI,
    'opcache' => $status ? $status['opcache_enabled'] : false,
    'cached_scripts' => $status ? $status['opcache_statistics']['num_cached_scripts'] : 0,
    'jit' => $status ? ($status['jit']['on'] ?? false) : false,
]);
