<?php
// Runs a request and writes into a ledger what it did: "B id" when it begins, "E id sum length" when it has ended.
const PIECE = 65536;

$ledger = fopen(getenv('LEDGER') . '/php.' . getmypid(), 'a');
$name = $_GET['id'];
$out = (int) $_GET['out'];
fwrite($ledger, "B $name\n");
$sum = hash_init('sha256');
$input = fopen('php://input', 'r');
while (!feof($input)) {
    hash_update($sum, fread($input, PIECE));
}
$body = hash_final($sum);
usleep($_GET['work'] * 1000);
$text = hash('sha256', $name);
header('Content-Type: text/plain');
header("X-Id: $name");
header("X-Sum: $body");
if ($_GET['stream'] === '0') {
    header("Content-Length: $out");
    fwrite($ledger, "E $name $body $out\n");
    echo str_repeat($text, intdiv($out, 64));
} else {
    $piece = str_repeat($text, PIECE / 64);
    for ($at = 0; $at < $out; $at += PIECE) {
        echo substr($piece, 0, min(PIECE, $out - $at));
        flush();
    }
    fwrite($ledger, "E $name $body $out\n");
}
