<?php
require __DIR__ . '/count.php';
$in = fopen('php://input', 'rb');
$digest = hash_init('sha256');
$length = 0;
while (!feof($in)) {
    $piece = fread($in, 65536);
    if ($piece === false || $piece === '') {
        break;
    }
    $length += strlen($piece);
    hash_update($digest, $piece);
}
$answer = $length . ' ' . hash_final($digest);
header('Content-Type: text/plain');
header('Content-Length: ' . strlen($answer));
echo $answer;
