<?php
/* 10 MiB (or ?bytes=N) in pieces of 64 KiB, no Content-Length; nothing is collected in PHP's own output buffer. */
require __DIR__ . '/count.php';
header('Content-Type: application/octet-stream');
while (ob_get_level()) {
    ob_end_clean();
}
$piece = str_repeat('0123456789abcdef', 4096);
$left = (int) ($_GET['bytes'] ?? 10485760);
while ($left >= 65536) {
    echo $piece;
    $left -= 65536;
}
if ($left) {
    echo substr($piece, 0, $left);
}
