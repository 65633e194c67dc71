<?php
require __DIR__ . '/count.php';
usleep(1000 * (int) ($_GET['ms'] ?? 200));
header('Content-Type: text/plain');
header('Content-Length: 12');
echo 'hello, world';
