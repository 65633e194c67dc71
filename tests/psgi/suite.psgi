# The handler tests of Plack's own suite, with its Lint around them. The client names the test by a field.
use strict;
use warnings;
use Plack::Middleware::Lint;
use Plack::Test::Suite;

Plack::Middleware::Lint->wrap(Plack::Test::Suite->test_app_handler);
