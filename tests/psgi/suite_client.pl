# Every handler test of Plack::Test::Suite against the server on the port that is given; TAP, one subtest for each.
use strict;
use warnings;
use LWP::UserAgent;
use Plack::Test::Suite;
use Test::More;

my ($port) = @ARGV;
my $agent = LWP::UserAgent->new(timeout => 20, keep_alive => 5);
for my $number (0 .. $#Plack::Test::Suite::TEST) {
    my ($name, $client) = @{$Plack::Test::Suite::TEST[$number]};
    subtest $name => sub {
        $client->(sub {
            my ($request) = @_;
            $request->uri->port($port);
            $request->header('X-Plack-Test' => $number);
            return $agent->request($request);
        });
        done_testing;
    };
}
done_testing;
